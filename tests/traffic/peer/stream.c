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
#include <sys/mman.h>

#include "stream.h"

static struct direction *directions;
static int count;

void fail(struct direction *d, const char *why, uint64_t at)
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
