// SPDX-License-Identifier: GPL-3.0-or-later
/* The habits of writers. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "stream.h"

/* Sends what is in d->out; returns 0 on an error, which it has noted. */
static int send_all(struct direction *d, const uint8_t *data, size_t length,
		    int flags)
{
	size_t sent = 0;

	while (sent < length) {
		ssize_t n =
			send(d->write_fd, data + sent, length - sent, flags);

		if (n < 0 && errno == EAGAIN) {
			await(d->write_fd, POLLOUT);
			continue;
		}
		if (n < 0 && errno == ENOBUFS && flags & MSG_ZEROCOPY) {
			flags &= ~MSG_ZEROCOPY;
			continue;
		}
		if (n <= 0) {
			fail(d, strerror(errno), d->written);
			return 0;
		}
		sent += (size_t)n;
		d->written += (size_t)n;
	}
	return 1;
}

static int write_vector(struct direction *d)
{
	struct iovec parts[16];
	struct msghdr message = {.msg_iov = parts};
	size_t total = 0;
	ssize_t n;

	for (size_t i = 0; i < 1 + draw(&d->write_random, 16); i++) {
		size_t length = limit(draw(&d->write_random, 4096),
				      d->bytes - d->written - total);

		pattern_fill(d->seed, d->written + total, d->out + total,
			     length);
		parts[message.msg_iovlen++] =
			(struct iovec){d->out + total, length};
		total += length;
	}
	if (!total)
		return 1;
	n = sendmsg(d->write_fd, &message, 0);
	if (n < 0 && errno == EAGAIN) {
		await(d->write_fd, POLLOUT);
		return 1;
	}
	if (n <= 0) {
		fail(d, strerror(errno), d->written);
		return 0;
	}
	d->written += (size_t)n;
	return 1;
}

static int write_file(struct direction *d, size_t length)
{
	off_t offset = 0;

	if (pwrite(d->file, d->out, length, 0) != (ssize_t)length)
		die("memfd");
	while ((size_t)offset < length) {
		ssize_t n = sendfile(d->write_fd, d->file, &offset,
				     length - (size_t)offset);

		if (n < 0 && errno == EAGAIN) {
			await(d->write_fd, POLLOUT);
			continue;
		}
		if (n <= 0) {
			fail(d, strerror(errno), d->written);
			return 0;
		}
		d->written += (size_t)n;
	}
	/* pages of the file are still in the queues: the next write must not
	 * change them */
	close(d->file);
	d->file = memfd_create("stream", 0);
	return 1;
}

/* Every zero-copy send has pages of its own: they may be read until the peer
 * has taken them. */
static int write_zerocopy(struct direction *d, size_t length)
{
	uint8_t *pages = mmap(NULL, length, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int one = 1, fine;

	if (pages == MAP_FAILED)
		die("mmap");
	setsockopt(d->write_fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one));
	memcpy(pages, d->out, length);
	fine = send_all(d, pages, length, MSG_ZEROCOPY);
	munmap(pages, length);
	return fine;
}

static int write_once(struct direction *d)
{
	uint64_t *random = &d->write_random, left = d->bytes - d->written;
	size_t length;

	switch (d->habit_writing) {
	case 'p':
		pause_ms(random, 1, 20);
		return 1;
	case 'v':
		return write_vector(d);
	case 's':
	case 'c':
		length = limit(1 + draw(random, 256), left);
		break;
	case 'm':
	case 'n':
		length = limit(1 + draw(random, 8192), left);
		break;
	default:
		length = limit(16384 + draw(random, CHUNK - 16384), left);
	}
	pattern_fill(d->seed, d->written, d->out, length);
	if (d->habit_writing == 'f')
		return write_file(d, length);
	if (d->habit_writing == 'z')
		return write_zerocopy(d, length);
	if (d->habit_writing == 'c')
		return send_all(d, d->out, length,
				draw(random, 4) && length < left ? MSG_MORE
								 : 0);
	return send_all(d, d->out, length,
			d->habit_writing == 'n' ? MSG_DONTWAIT : 0);
}

void *writer(void *argument)
{
	struct direction *d = argument;

	while (d->written < d->bytes && !d->failure) {
		uint64_t times = 1 + draw(&d->write_random, 32);

		d->habit_writing =
			d->writer[draw(&d->write_random, strlen(d->writer))];
		if (d->habit_writing == 'p')
			times = 1;
		while (times-- && d->written < d->bytes)
			if (!write_once(d))
				return NULL;
	}
	shutdown(d->write_fd, SHUT_WR);
	return NULL;
}
