// SPDX-License-Identifier: GPL-3.0-or-later
/* The socket peers of the traffic tests: `peer COMMAND ...`. Each prints what
 * happened and exits 1 when a byte was not where TCP promises it, 2 when it
 * could not run, and is killed by its own alarm when nothing moves any more. */
#include <signal.h>
#include <unistd.h>

#include "pattern.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"stream", main_stream},
	{"threads", main_threads},
	{"live", main_live},
	{"churn-server", main_churn_server},
	{"churn-client", main_churn_client},
};

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(*commands);
	     i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 2, argv + 2);
	fprintf(stderr, "peer: which command?\n");
	return 2;
}
