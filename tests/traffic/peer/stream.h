// SPDX-License-Identifier: GPL-3.0-or-later
/* One direction of a stream, and what its writer and its reader share. */
#ifndef STREAM_H
#define STREAM_H

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "pattern.h"

#define CHUNK (256 * 1024)

struct direction {
	int write_fd, read_fd, file;
	uint64_t seed, bytes, written, read, write_random, read_random,
		interrupted;
	const char *writer, *reader;
	char habit_writing, habit_reading;
	const char *failure;
	long failure_at;
	pthread_t writing, reading;
	uint8_t *out, *in;
};

void fail(struct direction *d, const char *why, uint64_t at);
void *writer(void *direction);
void *reader(void *direction);

static inline size_t limit(uint64_t wanted, uint64_t left)
{
	return wanted < left ? wanted : left;
}

static inline void pause_ms(uint64_t *random, uint64_t least, uint64_t most)
{
	usleep((useconds_t)((least + draw(random, most - least + 1)) * 1000));
}

static inline void await(int fd, short events)
{
	struct pollfd wait = {.fd = fd, .events = events};

	poll(&wait, 1, 1000);
}

static inline int blocks(int fd)
{
	return !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

#endif
