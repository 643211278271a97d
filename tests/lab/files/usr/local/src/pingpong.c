// SPDX-License-Identifier: GPL-3.0-or-later
/* Ping-pong over one TCP connection, both ends on one CPU:
 * pingpong PORT BYTES MILLISECONDS
 *
 * Prints one line of JSON; latencies are round trips in microseconds. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_SAMPLES 2000000
#define WARM_UP	    500

static char message[1 << 20];
static unsigned int nanoseconds[MAX_SAMPLES];

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void pin_to_first_cpu(void)
{
	cpu_set_t allowed, one;
	int cpu = 0;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		err(1, "sched_getaffinity");
	while (!CPU_ISSET(cpu, &allowed))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		err(1, "sched_setaffinity");
}

static void send_all(int fd, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = send(fd, message + done, size - done, MSG_NOSIGNAL);

		if (n < 0)
			err(1, "send");
		done += n;
	}
}

/* Returns 0 at the end of the stream. */
static int receive_all(int fd, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = recv(fd, message + done, size - done, 0);

		if (n < 0)
			err(1, "recv");
		if (n == 0)
			return 0;
		done += n;
	}
	return 1;
}

static void serve(int listener, size_t size)
{
	int one = 1, fd = accept(listener, NULL, NULL);

	if (fd < 0)
		err(1, "accept");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (receive_all(fd, size))
		send_all(fd, size);
	exit(0);
}

static int by_value(const void *a, const void *b)
{
	unsigned int x = *(const unsigned int *)a, y = *(const unsigned int *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	long long begin, before, after, end;
	int one = 1, listener, fd;
	size_t size, count = 0;

	if (argc != 4)
		errx(2, "usage: pingpong PORT BYTES MILLISECONDS");
	address.sin_port = htons(atoi(argv[1]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	size = atoi(argv[2]);
	if (size < 1 || size > sizeof(message))
		errx(2, "BYTES is from 1 to %zu", sizeof(message));

	pin_to_first_cpu();
	listener = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(listener, 1))
		err(1, "listen on port %s", argv[1]);
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(listener, size);
	}
	close(listener);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		err(1, "connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));

	for (int i = 0; i < WARM_UP; i++) {
		send_all(fd, size);
		if (!receive_all(fd, size))
			errx(1, "the server hung up");
	}
	begin = after = now();
	end = begin + atoll(argv[3]) * 1000000LL;
	while (after < end && count < MAX_SAMPLES) {
		before = after;
		send_all(fd, size);
		if (!receive_all(fd, size))
			errx(1, "the server hung up");
		after = now();
		nanoseconds[count++] = after - before;
	}
	qsort(nanoseconds, count, sizeof(nanoseconds[0]), by_value);
	printf("{\"count\": %zu, \"seconds\": %.6f, \"p50_us\": %.2f, "
	       "\"p99_us\": %.2f, \"errors\": 0}\n",
	       count, (after - begin) / 1e9, nanoseconds[count / 2] / 1e3,
	       nanoseconds[count * 99 / 100] / 1e3);
	return 0;
}
