// SPDX-License-Identifier: GPL-3.0-or-later
/*
 * One client and one server, one connection, one measurement, one line of JSON.
 * Small enough that what is measured is the kernel's path between the two.
 *
 *   sockbench pingpong|bulk [--unix] [--size BYTES] [--seconds S]
 *             [--client-cpu N] [--server-cpu N]
 *             [--server-netns PATH --address A.B.C.D]
 *             [--event-loop]
 *
 * pingpong: the client sends SIZE bytes, the server sends them back; round trip
 *           times in microseconds.
 * bulk:     the client writes SIZE bytes at a time, the server reads 128 KiB at
 *           a time; Gbit/s as the server sees them, from the first byte to the
 *           end of the stream, the tail after the last write included.
 * event-loop: the server's socket does not block, it waits in poll() instead.
 * CPU is user plus system time of both processes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define READ_SIZE   (128 * 1024)
#define MAX_SAMPLES 4000000
#define BURST	    16 /* writes between two looks at the clock */

enum mode { PINGPONG, BULK };

struct options {
	enum mode mode;
	int unix_socket;
	size_t size;
	double seconds;
	int client_cpu;
	int server_cpu;
	const char *server_netns;
	const char *address;
	int event_loop;
};

struct result {
	double seconds;
	double cpu;
	uint64_t bytes;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void pin(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(2, "sched_setaffinity %d", cpu);
}

static double cpu_used(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return usage.ru_utime.tv_sec + usage.ru_utime.tv_usec / 1e6 +
	       usage.ru_stime.tv_sec + usage.ru_stime.tv_usec / 1e6;
}

static void send_all(int fd, const char *buffer, size_t size)
{
	while (size) {
		ssize_t sent = send(fd, buffer, size, MSG_NOSIGNAL);

		if (sent < 0)
			err(2, "send");
		buffer += sent;
		size -= sent;
	}
}

static ssize_t receive(int fd, char *buffer, size_t size)
{
	struct pollfd readable = {.fd = fd, .events = POLLIN};
	ssize_t part;

	while ((part = recv(fd, buffer, size, 0)) < 0) {
		if (errno != EAGAIN)
			err(2, "recv");
		if (poll(&readable, 1, -1) < 0)
			err(2, "poll");
	}
	return part;
}

static size_t receive_all(int fd, char *buffer, size_t size)
{
	size_t got = 0;

	while (got < size) {
		ssize_t part = receive(fd, buffer + got, size - got);

		if (!part)
			break;
		got += part;
	}
	return got;
}

static int listen_on(const struct options *o, struct sockaddr_storage *where,
		     socklen_t *length)
{
	int fd, one = 1;

	memset(where, 0, sizeof(*where));
	if (o->unix_socket) {
		struct sockaddr_un *un = (struct sockaddr_un *)where;

		/* abstract name: nothing to remove afterwards */
		un->sun_family = AF_UNIX;
		snprintf(un->sun_path + 1, sizeof(un->sun_path) - 1,
			 "sockbench-%d", getpid());
		*length = sizeof(*un);
	} else {
		struct sockaddr_in *in = (struct sockaddr_in *)where;

		in->sin_family = AF_INET;
		inet_pton(AF_INET, o->address, &in->sin_addr);
		*length = sizeof(*in);
	}
	fd = socket(where->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!o->unix_socket)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (fd < 0 || bind(fd, (void *)where, *length) || listen(fd, 16) ||
	    getsockname(fd, (void *)where, length))
		err(2, "listen");
	return fd;
}

static int accept_on(const struct options *o, int listener)
{
	int flags = o->event_loop ? SOCK_NONBLOCK : 0;
	int one = 1, fd = accept4(listener, NULL, NULL, flags);

	if (fd < 0)
		err(2, "accept");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static struct result serve(const struct options *o, int fd)
{
	static char buffer[READ_SIZE];
	struct result r = {0};
	double start = 0;

	if (o->mode == PINGPONG) {
		while (receive_all(fd, buffer, o->size) == o->size)
			send_all(fd, buffer, o->size);
		return r;
	}
	for (;;) {
		ssize_t part = receive(fd, buffer, sizeof(buffer));

		if (!start)
			start = now();
		if (!part)
			break;
		r.bytes += part;
	}
	r.seconds = now() - start;
	return r;
}

static int by_value(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static size_t pingpong(const struct options *o, int fd, float *samples)
{
	static char buffer[READ_SIZE];
	double end = now() + o->seconds, before = now(), after;
	size_t n = 0;

	do {
		send_all(fd, buffer, o->size);
		if (receive_all(fd, buffer, o->size) != o->size)
			errx(2, "the server went away");
		after = now();
		samples[n++] = (after - before) * 1e6;
		before = after;
	} while (after < end && n < MAX_SAMPLES);
	return n;
}

static uint64_t stream(const struct options *o, int fd)
{
	static char buffer[READ_SIZE];
	double end = now() + o->seconds;
	uint64_t messages = 0;

	do {
		for (int i = 0; i < BURST; i++)
			send_all(fd, buffer, o->size);
		messages += BURST;
	} while (now() < end);
	shutdown(fd, SHUT_WR);
	return messages;
}

static void enter_netns(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		err(2, "setns %s", path);
	close(fd);
}

static pid_t start_server(const struct options *o, struct sockaddr_storage *at,
			  socklen_t *length, int *results)
{
	int listening[2], outcome[2], listener;
	struct result r;
	pid_t child;

	if (pipe(listening) || pipe(outcome))
		err(2, "pipe");
	child = fork();
	if (child < 0)
		err(2, "fork");
	if (child) {
		if (read(listening[0], at, sizeof(*at)) != sizeof(*at) ||
		    read(listening[0], length, sizeof(*length)) !=
			    sizeof(*length))
			errx(2, "the server did not start");
		*results = outcome[0];
		return child;
	}
	pin(o->server_cpu);
	if (o->server_netns)
		enter_netns(o->server_netns);
	listener = listen_on(o, at, length);
	if (write(listening[1], at, sizeof(*at)) < 0 ||
	    write(listening[1], length, sizeof(*length)) < 0)
		err(2, "write");
	r = serve(o, accept_on(o, listener));
	r.cpu = cpu_used(RUSAGE_SELF);
	if (write(outcome[1], &r, sizeof(r)) < 0)
		err(2, "write");
	exit(0);
}

static void parse(int argc, char **argv, struct options *o)
{
	static const struct option names[] = {
		{"unix", no_argument, NULL, 'u'},
		{"size", required_argument, NULL, 's'},
		{"seconds", required_argument, NULL, 't'},
		{"client-cpu", required_argument, NULL, 'c'},
		{"server-cpu", required_argument, NULL, 'd'},
		{"server-netns", required_argument, NULL, 'n'},
		{"address", required_argument, NULL, 'a'},
		{"event-loop", no_argument, NULL, 'e'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (c) {
		case 'u':
			o->unix_socket = 1;
			break;
		case 's':
			o->size = strtoul(optarg, NULL, 0);
			break;
		case 't':
			o->seconds = strtod(optarg, NULL);
			break;
		case 'c':
			o->client_cpu = atoi(optarg);
			break;
		case 'd':
			o->server_cpu = atoi(optarg);
			break;
		case 'n':
			o->server_netns = optarg;
			break;
		case 'a':
			o->address = optarg;
			break;
		case 'e':
			o->event_loop = 1;
			break;
		default:
			exit(2);
		}
	}
	if (optind + 1 != argc || !o->size || o->size > READ_SIZE)
		errx(2, "sockbench pingpong|bulk, --size at most %d",
		     READ_SIZE);
	if (!strcmp(argv[optind], "pingpong"))
		o->mode = PINGPONG;
	else if (!strcmp(argv[optind], "bulk"))
		o->mode = BULK;
	else
		errx(2, "unknown mode %s", argv[optind]);
}

int main(int argc, char **argv)
{
	struct options o = {.size = 64,
			    .seconds = 1,
			    .client_cpu = -1,
			    .server_cpu = -1,
			    .address = "127.0.0.1"};
	struct sockaddr_storage at;
	struct result server = {0};
	float *samples = NULL;
	int fd, one = 1, results;
	uint64_t n;
	socklen_t length;
	double cpu;
	pid_t child;

	signal(SIGPIPE, SIG_IGN);
	parse(argc, argv, &o);
	child = start_server(&o, &at, &length, &results);
	pin(o.client_cpu);
	fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (void *)&at, length))
		err(2, "connect");
	if (o.mode == PINGPONG) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		samples = calloc(MAX_SAMPLES, sizeof(*samples));
		n = pingpong(&o, fd, samples);
	} else {
		n = stream(&o, fd);
	}
	cpu = cpu_used(RUSAGE_SELF);
	close(fd);
	if (read(results, &server, sizeof(server)) != sizeof(server))
		errx(2, "the server failed");
	waitpid(child, NULL, 0);
	cpu += server.cpu;
	if (o.mode == PINGPONG) {
		qsort(samples, n, sizeof(*samples), by_value);
		printf("{\"p50_us\": %.3f, \"p99_us\": %.3f, "
		       "\"cpu_us\": %.3f, \"count\": %llu}\n",
		       samples[n / 2], samples[n * 99 / 100], cpu * 1e6 / n,
		       (unsigned long long)n);
		return 0;
	}
	printf("{\"gbits\": %.4f, \"cpu_per_gb\": %.4f, \"messages\": %llu, "
	       "\"seconds\": %.4f}\n",
	       server.bytes * 8 / server.seconds / 1e9,
	       cpu / (server.bytes / 1e9), (unsigned long long)n,
	       server.seconds);
	return 0;
}
