/*-------------------------------------------------------------------------
 *
 * login.h
 *		What the gateway's own role may do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_LOGIN_H
#define GATEWAY_LOGIN_H

/* Looks at the login role as soon as the database answers, and warns in the log of what it should not have. */
extern void login_inspect(void);

/* Stops looking. */
extern void login_stop(void);

#endif							/* GATEWAY_LOGIN_H */
