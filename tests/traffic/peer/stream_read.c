// SPDX-License-Identifier: GPL-3.0-or-later
/* The habits of readers. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "stream.h"

static size_t read_length(struct direction *d)
{
	switch (d->habit_reading) {
	case 't':
		return 1 + draw(&d->read_random, 16);
	case 'g':
		return CHUNK;
	case 's':
	case 'l':
		return 1 + draw(&d->read_random, 4096);
	default:
		return 1 + draw(&d->read_random, 32768);
	}
}

static ssize_t peek_then_read(struct direction *d, size_t length)
{
	ssize_t seen = recv(d->read_fd, d->in, length, MSG_PEEK);

	if (seen <= 0)
		return seen;
	if (pattern_check(d->seed, d->read, d->in, (size_t)seen) >= 0)
		fail(d, "wrong byte peeked", d->read);
	return recv(d->read_fd, d->in,
		    1 + draw(&d->read_random, (uint64_t)seen), 0);
}

static ssize_t poll_then_read(struct direction *d, size_t length)
{
	ssize_t n;

	do {
		await(d->read_fd, POLLIN);
		n = recv(d->read_fd, d->in, length, MSG_DONTWAIT);
	} while (n < 0 && errno == EAGAIN);
	return n;
}

static ssize_t ask_then_read(struct direction *d, size_t length)
{
	int waiting = 0;

	ioctl(d->read_fd, FIONREAD, &waiting);
	return recv(d->read_fd, d->in,
		    waiting > 0 ? limit((uint64_t)waiting, CHUNK) : length, 0);
}

static ssize_t read_vector(struct direction *d, size_t length)
{
	size_t first = length / 3;
	struct iovec parts[2] = {{d->in, first},
				 {d->in + first, length - first}};

	return readv(d->read_fd, parts, 2);
}

static ssize_t read_low_water(struct direction *d, size_t length)
{
	int mark = (int)(1 + draw(&d->read_random, 4096)), one = 1;
	ssize_t n;

	setsockopt(d->read_fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof(mark));
	n = recv(d->read_fd, d->in, length, 0);
	setsockopt(d->read_fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof(one));
	return n;
}

static ssize_t read_once(struct direction *d)
{
	size_t length = read_length(d);

	switch (d->habit_reading) {
	case 'k':
		return peek_then_read(d, length);
	case 'e':
		return poll_then_read(d, length);
	case 'i':
		return ask_then_read(d, length);
	case 'v':
		return read_vector(d, length);
	case 'l':
		return read_low_water(d, length);
	case 's':
		pause_ms(&d->read_random, 1, 2);
		return recv(d->read_fd, d->in, length, 0);
	default:
		return recv(d->read_fd, d->in, length, 0);
	}
}

void *reader(void *argument)
{
	struct direction *d = argument;
	uint64_t times = 0;

	for (;;) {
		ssize_t n;
		long wrong;

		if (!times--) {
			d->habit_reading = d->reader[draw(&d->read_random,
							  strlen(d->reader))];
			times = 1 + draw(&d->read_random,
					 d->habit_reading == 't' ? 400 : 24);
		}
		if (d->habit_reading == 'b') {
			pause_ms(&d->read_random, 20, 120);
			times = 0;
			continue;
		}
		n = read_once(d);
		if (n < 0 && errno == EAGAIN) {
			if (blocks(d->read_fd))
				d->interrupted++;
			else
				await(d->read_fd, POLLIN);
			continue;
		}
		if (n <= 0) {
			if (n < 0 || d->read != d->bytes)
				fail(d,
				     n ? strerror(errno)
				       : "end of stream too early",
				     d->read);
			return NULL;
		}
		wrong = pattern_check(d->seed, d->read, d->in, (size_t)n);
		if (wrong >= 0) {
			fail(d, "wrong byte", d->read + (uint64_t)wrong);
			shutdown(d->read_fd, SHUT_RDWR);
			return NULL;
		}
		d->read += (uint64_t)n;
	}
}
