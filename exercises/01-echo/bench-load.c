/*
 * The load for every server of the comparison. Checks every byte that comes back; prints one figure.
 *
 *     ./load tcp PORT CLIENTS SIZE SECONDS     round trips a second: each client has one message under way
 *     ./load udp PORT CLIENTS SIZE SECONDS     the same with datagrams; one that is lost is an error
 *     ./load bulk PORT MEBIBYTES               MB/s one way, one client sending and reading at once
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, PERIOD = 251, PATIENCE_MS = 10000 }; /* a prime: no two chunks begin alike */

static char pattern[CHUNK + PERIOD];

static void die(const char *what) {
  fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "not an echo");
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static int connected(int type, int port) {
  struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, type, 0), on = 1;
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
  if (type == SOCK_STREAM) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

struct client {
  int fd;
  size_t got;
  long rounds;
};

/* The message of round n begins n bytes into the pattern, so that an old one is not taken for the new one. */
static const char *message(const struct client *client) { return pattern + client->rounds % PERIOD; }

static void send_message(struct client *client, size_t size) {
  errno = 0;
  if (send(client->fd, message(client), size, 0) != (ssize_t)size) die("send");
}

static void round_trips(int type, int port, int clients, size_t size, double seconds) {
  struct epoll_event events[64];
  static char buffer[CHUNK];
  struct client *all = calloc(clients, sizeof *all);
  int epoll = epoll_create1(0);
  for (int i = 0; i < clients; i++) {
    all[i].fd = connected(type, port);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
    epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event);
  }
  double start = now(), end = start;
  long rounds = 0;
  int under_way = clients;
  for (int i = 0; i < clients; i++) send_message(&all[i], size);
  while (under_way > 0) {
    int count = epoll_wait(epoll, events, 64, PATIENCE_MS);
    errno = 0;
    if (count <= 0) die("nothing came back");
    for (int i = 0; i < count; i++) {
      struct client *client = events[i].data.ptr;
      ssize_t got = recv(client->fd, buffer, size - client->got, 0);
      if (got <= 0 || memcmp(buffer, message(client) + client->got, got) != 0) die("recv");
      if ((client->got += got) < size) continue;
      client->got = 0;
      client->rounds++;
      rounds++;
      if (end < start + seconds)
        send_message(client, size);
      else
        under_way--;
    }
    end = now();
  }
  printf("%.0f\n", rounds / (end - start));
}

static void bulk(int port, size_t total) {
  static char buffer[CHUNK];
  size_t sent = 0, got = 0;
  struct pollfd poller = {.fd = connected(SOCK_STREAM, port)};
  double start = now();
  while (got < total) {
    poller.events = POLLIN | (sent < total ? POLLOUT : 0);
    if (poll(&poller, 1, PATIENCE_MS) <= 0) die("poll");
    if (poller.revents & POLLOUT) {
      size_t size = total - sent < CHUNK ? total - sent : CHUNK;
      ssize_t count = send(poller.fd, pattern + sent % PERIOD, size, MSG_DONTWAIT);
      if (count < 0 && errno != EAGAIN) die("send");
      if (count > 0 && (sent += count) == total) shutdown(poller.fd, SHUT_WR);
    }
    if (poller.revents & (POLLIN | POLLHUP)) {
      ssize_t count = recv(poller.fd, buffer, CHUNK, MSG_DONTWAIT);
      if (count < 0 && errno == EAGAIN) continue;
      errno = 0;
      if (count <= 0 || memcmp(buffer, pattern + got % PERIOD, count) != 0) die("recv");
      got += count;
    }
  }
  printf("%.1f\n", total / 1e6 / (now() - start));
}

int main(int argc, char **argv) {
  for (size_t i = 0; i < sizeof pattern; i++) pattern[i] = i % PERIOD;
  if (argc == 4 && strcmp(argv[1], "bulk") == 0) {
    bulk(atoi(argv[2]), (size_t)atoi(argv[3]) << 20);
  } else if (argc == 6) {
    int type = strcmp(argv[1], "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM;
    round_trips(type, atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), atof(argv[5]));
  } else {
    fprintf(stderr, "usage: %s tcp|udp PORT CLIENTS SIZE SECONDS, or bulk PORT MEBIBYTES\n", argv[0]);
    return 2;
  }
  return 0;
}
