// SPDX-License-Identifier: GPL-3.0-or-later
/* peer threads SECONDS WRITE_FD READ_FD SEED BYTES READER_PAUSE_MS
 *
 * Four threads write to one socket at once. TCP promises nothing about the
 * order between them and everything about the order within each: the upper two
 * bits of a byte say whose it is, the lower six follow that thread's pattern.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pattern.h"

#define WRITERS 4
#define CHUNK	(128 * 1024)

static int write_fd;
static uint64_t seed, bytes;

static void await(int fd, short events)
{
	struct pollfd wait = {.fd = fd, .events = events};

	poll(&wait, 1, 1000);
}

static uint8_t tagged(uint64_t thread, uint64_t position)
{
	return (uint8_t)(thread << 6 |
			 (pattern_byte(seed + thread, position) & 63));
}

static void *writer(void *argument)
{
	uint64_t thread = (uintptr_t)argument, random = mix(seed + thread),
		 position = 0;
	uint8_t *buffer = must_alloc(CHUNK);

	while (position < bytes) {
		uint64_t most = draw(&random, 8) ? 4096 : CHUNK;
		uint64_t length = 1 + draw(&random, most), sent = 0;

		if (length > bytes - position)
			length = bytes - position;
		for (uint64_t i = 0; i < length; i++)
			buffer[i] = tagged(thread, position + i);
		while (sent < length) {
			ssize_t n =
				send(write_fd, buffer + sent, length - sent, 0);

			if (n < 0 && errno == EAGAIN) {
				await(write_fd, POLLOUT);
				continue;
			}
			if (n <= 0)
				die("send");
			sent += (uint64_t)n;
		}
		position += length;
		if (!draw(&random, 64))
			usleep((useconds_t)draw(&random, 20000));
	}
	return NULL;
}

int main_threads(int argc, char **argv)
{
	uint64_t read[WRITERS] = {0}, total = 0, random;
	useconds_t pause;
	pthread_t threads[WRITERS];
	uint8_t *buffer = must_alloc(CHUNK);
	int read_fd;

	if (argc < 6)
		return 2;
	alarm((unsigned int)atoi(argv[0]));
	write_fd = atoi(argv[1]);
	read_fd = atoi(argv[2]);
	seed = strtoull(argv[3], NULL, 0);
	bytes = strtoull(argv[4], NULL, 0);
	pause = (useconds_t)atoi(argv[5]) * 1000;
	random = mix(~seed);
	for (uintptr_t i = 0; i < WRITERS; i++)
		pthread_create(&threads[i], NULL, writer, (void *)i);
	while (total < bytes * WRITERS) {
		ssize_t n = recv(read_fd, buffer, 1 + draw(&random, CHUNK), 0);

		if (n < 0 && errno == EAGAIN) {
			await(read_fd, POLLIN);
			continue;
		}
		if (n <= 0)
			die("recv");
		for (ssize_t i = 0; i < n; i++) {
			uint64_t thread = buffer[i] >> 6;

			if (buffer[i] != tagged(thread, read[thread])) {
				printf("wrong byte: thread %lu, its position "
				       "%lu, position %lu of the stream\n",
				       thread, read[thread],
				       total + (uint64_t)i);
				return 1;
			}
			read[thread]++;
		}
		total += (uint64_t)n;
		if (pause && !draw(&random, 32))
			usleep(pause);
	}
	printf("%lu bytes of %d threads in order\n", total, WRITERS);
	return 0;
}
