// SPDX-License-Identifier: GPL-3.0-or-later
/* What every peer sends: bytes that depend on the stream's seed and the
 * position, so that a byte lost, doubled, moved or taken from another stream
 * shows at once. */
#ifndef PATTERN_H
#define PATTERN_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* splitmix64: one step from a counter to 64 well mixed bits */
static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static inline uint64_t pattern_word(uint64_t seed, uint64_t index)
{
	return mix(seed ^ (index * 0xd1342543de82ef95ULL));
}

static inline uint8_t pattern_byte(uint64_t seed, uint64_t position)
{
	return (uint8_t)(pattern_word(seed, position / 8) >>
			 (position % 8 * 8));
}

static inline void pattern_fill(uint64_t seed, uint64_t position,
				uint8_t *buffer, size_t length)
{
	size_t at = 0;

	while (at < length) {
		if ((position + at) % 8 == 0 && length - at >= 8) {
			uint64_t word = pattern_word(seed, (position + at) / 8);

			memcpy(buffer + at, &word, 8);
			at += 8;
		} else {
			buffer[at] = pattern_byte(seed, position + at);
			at++;
		}
	}
}

/* The offset of the first wrong byte, or -1. */
static inline long pattern_check(uint64_t seed, uint64_t position,
				 const uint8_t *buffer, size_t length)
{
	size_t at = 0;

	while (at < length) {
		if ((position + at) % 8 == 0 && length - at >= 8) {
			uint64_t word = pattern_word(seed, (position + at) / 8);

			if (memcmp(buffer + at, &word, 8) == 0) {
				at += 8;
				continue;
			}
		}
		if (buffer[at] != pattern_byte(seed, position + at))
			return (long)at;
		at++;
	}
	return -1;
}

/* Random numbers of one thread: the same seed gives the same run. */
static inline uint64_t draw(uint64_t *state, uint64_t below)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return mix(*state) % below;
}

static inline void die(const char *what)
{
	perror(what);
	exit(2);
}

static inline void *must_alloc(size_t size)
{
	void *memory = malloc(size);

	if (!memory)
		die("malloc");
	return memory;
}

int main_stream(int argc, char **argv);
int main_threads(int argc, char **argv);
int main_live(int argc, char **argv);
int main_churn_server(int argc, char **argv);
int main_churn_client(int argc, char **argv);

#endif
