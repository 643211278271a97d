// SPDX-License-Identifier: GPL-3.0-or-later
/* peer live SEED FD_A FD_B FD_A FD_B ...
 *
 * Connections that send in both directions the whole time, gently, until
 * standard input ends; then every byte that was sent must have been read.
 * Prints "running" after the first round and one line of totals at the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "pattern.h"

#define MOST	    8192
#define IDLE_ROUNDS 2000 /* of 2 ms: how long the last bytes may take */

struct flow {
	int write_fd, read_fd;
	uint64_t seed, sent, received;
};

static struct flow *flows;
static int count;
static uint64_t random_state;
static uint8_t buffer[1 << 16];

static void failed(const struct flow *flow, const char *what)
{
	printf("flow %ld: %s, sent %lu, received %lu\n", flow - flows, what,
	       flow->sent, flow->received);
	exit(1);
}

static void send_some(struct flow *flow)
{
	size_t length = 1 + draw(&random_state, MOST);
	ssize_t n;

	pattern_fill(flow->seed, flow->sent, buffer, length);
	n = send(flow->write_fd, buffer, length, MSG_DONTWAIT);
	if (n > 0)
		flow->sent += (uint64_t)n;
	else if (errno != EAGAIN)
		failed(flow, strerror(errno));
}

static int receive_some(struct flow *flow)
{
	ssize_t n = recv(flow->read_fd, buffer, sizeof(buffer), MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0)
		failed(flow, n ? strerror(errno) : "end of stream");
	if (pattern_check(flow->seed, flow->received, buffer, (size_t)n) >= 0)
		failed(flow, "wrong byte");
	flow->received += (uint64_t)n;
	return 1;
}

static int stopped(void)
{
	struct pollfd input = {.fd = 0, .events = POLLIN};
	char byte;

	return poll(&input, 1, 0) > 0 && read(0, &byte, 1) == 0;
}

static void drain(void)
{
	for (int idle = 0; idle < IDLE_ROUNDS; idle++) {
		uint64_t missing = 0;

		for (int i = 0; i < count; i++) {
			while (receive_some(&flows[i]))
				;
			missing += flows[i].sent - flows[i].received;
		}
		if (!missing)
			return;
		usleep(2000);
	}
	for (int i = 0; i < count; i++)
		if (flows[i].sent != flows[i].received)
			failed(&flows[i], "bytes lost");
}

int main_live(int argc, char **argv)
{
	uint64_t sent = 0, received = 0, rounds = 0;

	count = (argc - 1) / 2 * 2;
	flows = calloc((size_t)count, sizeof(*flows));
	random_state = strtoull(argv[0], NULL, 0);
	for (int i = 0; i < count; i++) {
		flows[i].write_fd = atoi(argv[1 + i]);
		flows[i].read_fd = atoi(argv[1 + (i ^ 1)]);
		flows[i].seed = mix(random_state + (uint64_t)i);
	}
	while (!stopped()) {
		for (int i = 0; i < count; i++) {
			send_some(&flows[i]);
			/* not every time: so there is data in the queues at any
			 * moment */
			if (draw(&random_state, 4))
				receive_some(&flows[i]);
		}
		if (rounds++ == 0)
			printf("running\n");
		usleep(5000);
	}
	drain();
	for (int i = 0; i < count; i++) {
		sent += flows[i].sent;
		received += flows[i].received;
	}
	printf("flows %d rounds %lu sent %lu received %lu\n", count, rounds,
	       sent, received);
	return 0;
}
