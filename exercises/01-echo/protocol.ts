export const ECHO_PORT = 10_100;
