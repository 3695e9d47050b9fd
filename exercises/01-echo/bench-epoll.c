/*
 * The yardstick: an echo server (RFC 862) for TCP and UDP in one thread around epoll, as a C programmer would write
 * it. Prints `listening on tcp://127.0.0.1:PORT`; ends when it is killed. What a client does not take is kept for it
 * in at most one buffer, and nothing more is read from it until that has gone.
 *
 *     cc -O2 -o epoll bench-epoll.c && ./epoll tcp
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 64 * 1024 };

struct client {
  int fd;
  size_t start, end; /* what is still to be sent of the buffer */
  char buffer[BUFFER];
};

static void die(const char *what) {
  perror(what);
  exit(1);
}

static int listening(int type) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) < 0) die("bind");
  if (type == SOCK_STREAM && listen(fd, 512) < 0) die("listen");
  getsockname(fd, (struct sockaddr *)&address, &size);
  printf("listening on %s://127.0.0.1:%d\n", type == SOCK_STREAM ? "tcp" : "udp", ntohs(address.sin_port));
  fflush(stdout);
  return fd;
}

static void datagrams(void) {
  static char buffer[65536];
  struct sockaddr_storage from;
  int fd = listening(SOCK_DGRAM), epoll = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN};
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  while (epoll_wait(epoll, &event, 1, -1) >= 0 || errno == EINTR) {
    for (;;) {
      socklen_t size = sizeof from;
      ssize_t got = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &size);
      if (got < 0) break;
      sendto(fd, buffer, got, 0, (struct sockaddr *)&from, size);
    }
  }
}

static void watch(int epoll, struct client *client, int operation) {
  int pending = client->end > client->start;
  struct epoll_event event = {.events = pending ? EPOLLOUT : EPOLLIN, .data.ptr = client};
  epoll_ctl(epoll, operation, client->fd, &event);
}

/* Reads and writes once. Returns 0 when the client has gone. */
static int serve(int epoll, struct client *client) {
  int waited = client->end > client->start;
  if (!waited) {
    ssize_t got = read(client->fd, client->buffer, BUFFER);
    if (got < 0 && errno == EAGAIN) return 1;
    if (got <= 0) return 0;
    client->start = 0;
    client->end = got;
  }
  ssize_t sent = write(client->fd, client->buffer + client->start, client->end - client->start);
  if (sent < 0 && errno != EAGAIN) return 0;
  if (sent > 0) client->start += sent;
  if (waited != (client->end > client->start)) watch(epoll, client, EPOLL_CTL_MOD);
  return 1;
}

static void streams(void) {
  struct epoll_event events[256], event = {.events = EPOLLIN};
  int server = listening(SOCK_STREAM), epoll = epoll_create1(0), on = 1;
  epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event);
  for (;;) {
    int count = epoll_wait(epoll, events, 256, -1);
    for (int i = 0; i < count; i++) {
      struct client *client = events[i].data.ptr;
      if (client == NULL) {
        client = calloc(1, sizeof *client);
        client->fd = accept4(server, NULL, NULL, SOCK_NONBLOCK);
        setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(epoll, client, EPOLL_CTL_ADD);
      } else if (!serve(epoll, client)) {
        close(client->fd);
        free(client);
      }
    }
  }
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "tcp") == 0) streams();
  if (argc == 2 && strcmp(argv[1], "udp") == 0) datagrams();
  fprintf(stderr, "usage: %s tcp|udp\n", argv[0]);
  return 2;
}
