/*-------------------------------------------------------------------------
 *
 * listen.h
 *		The socket that clients connect to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_LISTEN_H
#define GATEWAY_LISTEN_H

/* Opens the address of the setting "listen"; returns -1 and says in the log why it cannot. */
extern int	listen_open(void);

/* Writes the address into the log, which tells the port if any free one was asked for. */
extern void listen_log(int fd);

#endif
