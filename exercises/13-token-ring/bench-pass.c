/*
 * The yardstick: one byte that goes round N TCP connections on loopback, as fast as system calls allow; in one thread,
 * or with a process for each station. Prints how many rounds a second it made.
 *
 *     cc -O2 -o pass bench-pass.c && ./pass 4 1000 && ./pass 4 1000 processes
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static void pass(int from, int to) {
  char byte;
  if (read(from, &byte, 1) != 1 || write(to, &byte, 1) != 1) die("pass");
}

int main(int argc, char **argv) {
  if (argc < 3) return fprintf(stderr, "usage: %s STATIONS MILLISECONDS [processes]\n", argv[0]), 2;
  int stations = atoi(argv[1]), on = 1, first = argc > 3 ? stations - 1 : 0;
  double limit = atof(argv[2]) / 1000;
  int *out = calloc(stations, sizeof *out), *in = calloc(stations, sizeof *in);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int server = socket(AF_INET, SOCK_STREAM, 0);
  if (bind(server, (struct sockaddr *)&address, size) < 0 || listen(server, stations) < 0) die("listen");
  getsockname(server, (struct sockaddr *)&address, &size);
  for (int i = 0; i < stations; i++) {
    out[i] = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(out[i], (struct sockaddr *)&address, size) < 0) die("connect");
    if ((in[i] = accept(server, NULL, NULL)) < 0) die("accept");
    setsockopt(out[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }

  /* Station i reads from in[i] and writes to out[i + 1]; what has no process of its own is done in this one. */
  pid_t *children = calloc(stations, sizeof *children);
  for (int i = 0; i < first; i++)
    if ((children[i] = fork()) == 0)
      for (;;) pass(in[i], out[i + 1]);

  long rounds = 0;
  double start = now(), passed;
  if (write(out[0], "T", 1) != 1) die("write");
  do {
    for (int i = first; i < stations; i++) pass(in[i], out[(i + 1) % stations]);
    rounds++;
  } while ((passed = now() - start) < limit);
  for (int i = 0; i < first; i++) kill(children[i], SIGKILL);
  printf("%.1f\n", rounds / passed);
  return 0;
}
