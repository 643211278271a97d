// SPDX-License-Identifier: GPL-3.0-or-later
/* peer stream SECONDS WRITE_FD,READ_FD,SEED,BYTES,WRITER,READER ...
 *
 * One writer and one reader thread for each direction given. WRITER and READER
 * are letters, each a habit of real programs; the thread draws one of them
 * after another. The last byte is followed by a half-close.
 *
 * Descriptors may be non-blocking (event loops): then every call that would
 * block waits in poll() first. A blocking read that returns EAGAIN is counted
 * as interrupted: plain TCP never does that. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
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

static struct direction *directions;
static int count;

static void fail(struct direction *d, const char *why, uint64_t at)
{
	if (!d->failure) {
		d->failure = why;
		d->failure_at = (long)at;
	}
}

static int report(void)
{
	int failed = 0;

	for (int i = 0; i < count; i++) {
		struct direction *d = &directions[i];

		if (d->failure)
			failed = 1;
		printf("direction %d: written %lu (%c) read %lu (%c) of %lu, "
		       "interrupted %lu%s%s",
		       i, d->written, d->habit_writing, d->read,
		       d->habit_reading, d->bytes, d->interrupted,
		       d->failure ? ", FAILED: " : "",
		       d->failure ? d->failure : "");
		if (d->failure)
			printf(" at %ld", d->failure_at);
		printf("\n");
	}
	return failed;
}

static void *deadline(void *seconds)
{
	sleep((unsigned int)(uintptr_t)seconds);
	printf("nothing moves any more\n");
	report();
	exit(1);
}

static size_t limit(uint64_t wanted, uint64_t left)
{
	return wanted < left ? wanted : left;
}

static void pause_ms(uint64_t *random, uint64_t least, uint64_t most)
{
	usleep((useconds_t)((least + draw(random, most - least + 1)) * 1000));
}

static void await(int fd, short events)
{
	struct pollfd wait = {.fd = fd, .events = events};

	poll(&wait, 1, 1000);
}

static int blocks(int fd)
{
	return !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

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

static void *writer(void *argument)
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

static void *reader(void *argument)
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

static void parse(struct direction *d, char *text)
{
	char *fields[6];

	for (int i = 0; i < 6; i++) {
		fields[i] = strsep(&text, ",");
		if (!fields[i])
			die("six fields");
	}
	d->write_fd = atoi(fields[0]);
	d->read_fd = atoi(fields[1]);
	d->seed = strtoull(fields[2], NULL, 0);
	d->bytes = strtoull(fields[3], NULL, 0);
	d->writer = fields[4];
	d->reader = fields[5];
	d->write_random = mix(d->seed);
	d->read_random = mix(d->write_random);
	d->habit_writing = d->habit_reading = '-';
	d->out = must_alloc(CHUNK);
	d->in = must_alloc(CHUNK);
	d->file = memfd_create("stream", 0);
}

int main_stream(int argc, char **argv)
{
	pthread_t watch;

	count = argc - 1;
	directions = calloc((size_t)count, sizeof(*directions));
	for (int i = 0; i < count; i++)
		parse(&directions[i], argv[i + 1]);
	pthread_create(&watch, NULL, deadline,
		       (void *)(uintptr_t)atoi(argv[0]));
	for (int i = 0; i < count; i++) {
		pthread_create(&directions[i].reading, NULL, reader,
			       &directions[i]);
		pthread_create(&directions[i].writing, NULL, writer,
			       &directions[i]);
	}
	for (int i = 0; i < count; i++) {
		pthread_join(directions[i].writing, NULL);
		pthread_join(directions[i].reading, NULL);
	}
	return report();
}
