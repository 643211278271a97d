// SPDX-License-Identifier: GPL-3.0-or-later
/* peer churn-server LISTEN_FD THREADS
 * peer churn-client ADDRESS PORT CONNECTIONS THREADS
 *
 * Short connections: the client writes a request in three pieces at once, the
 * server answers in three, the client closes. The request's first eight bytes
 * are the seed of both patterns. Errors and wrong bytes are counted. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pattern.h"

#define PIECES 3
static const size_t pieces[PIECES] = {24, 200, 2000};
#define TOTAL (24 + 200 + 2000)

static atomic_ulong done, wrong, broken;
static int listener;
static struct sockaddr_storage target;
static socklen_t target_length;
static unsigned long wanted;
static atomic_ulong started;

static void quick(int fd)
{
	struct timeval patience = {.tv_sec = 10};
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
}

static int send_pieces(int fd, const uint8_t *data)
{
	for (int i = 0; i < PIECES; i++) {
		if (send(fd, data, pieces[i], 0) != (ssize_t)pieces[i])
			return 0;
		data += pieces[i];
	}
	return 1;
}

static int read_all(int fd, uint8_t *data)
{
	size_t length = 0;

	while (length < TOTAL) {
		ssize_t n = recv(fd, data + length, TOTAL - length, 0);

		if (n <= 0)
			return 0;
		length += (size_t)n;
	}
	return 1;
}

static void serve_one(int fd)
{
	uint8_t data[TOTAL], byte;
	uint64_t seed;

	if (!read_all(fd, data)) {
		broken++;
		return;
	}
	memcpy(&seed, data, 8);
	if (pattern_check(seed, 8, data + 8, TOTAL - 8) >= 0)
		wrong++;
	pattern_fill(~seed, 0, data, TOTAL);
	if (!send_pieces(fd, data) || recv(fd, &byte, 1, 0) != 0)
		broken++;
	done++;
}

static void *serve(void *unused)
{
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			return unused;
		quick(fd);
		serve_one(fd);
		close(fd);
	}
}

int main_churn_server(int argc, char **argv)
{
	pthread_t thread;
	char byte;

	if (argc < 2)
		return 2;
	listener = atoi(argv[0]);
	for (int i = 0; i < atoi(argv[1]); i++)
		pthread_create(&thread, NULL, serve, NULL);
	while (read(0, &byte, 1) > 0)
		;
	usleep(200000);
	printf("served %lu wrong %lu broken %lu\n", done, wrong, broken);
	return wrong || broken ? 1 : 0;
}

static int ask_one(uint64_t seed)
{
	uint8_t data[TOTAL];
	int fd = socket(target.ss_family, SOCK_STREAM, 0), fine;

	quick(fd);
	if (connect(fd, (struct sockaddr *)&target, target_length)) {
		perror("connect");
		broken++;
		close(fd);
		return 0;
	}
	memcpy(data, &seed, 8);
	pattern_fill(seed, 8, data + 8, TOTAL - 8);
	fine = send_pieces(fd, data) && read_all(fd, data);
	if (!fine)
		broken++;
	else if (pattern_check(~seed, 0, data, TOTAL) >= 0)
		wrong++;
	close(fd);
	return fine;
}

static void *ask(void *unused)
{
	for (;;) {
		unsigned long number = started++;

		if (number >= wanted || broken > 20)
			return unused;
		ask_one(mix(number));
	}
}

static void resolve(const char *address, const char *port)
{
	struct sockaddr_in *four = (struct sockaddr_in *)&target;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)&target;

	if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
		four->sin_family = AF_INET;
		four->sin_port = htons((uint16_t)atoi(port));
		target_length = sizeof(*four);
	} else if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons((uint16_t)atoi(port));
		target_length = sizeof(*six);
	} else {
		die("address");
	}
}

int main_churn_client(int argc, char **argv)
{
	pthread_t threads[16];
	int number;

	if (argc < 4)
		return 2;
	resolve(argv[0], argv[1]);
	wanted = strtoul(argv[2], NULL, 0);
	number = atoi(argv[3]) < 16 ? atoi(argv[3]) : 16;
	for (int i = 0; i < number; i++)
		pthread_create(&threads[i], NULL, ask, NULL);
	for (int i = 0; i < number; i++)
		pthread_join(threads[i], NULL);
	printf("asked %lu wrong %lu broken %lu\n", wanted, wrong, broken);
	return wrong || broken ? 1 : 0;
}
