/*-------------------------------------------------------------------------
 *
 * address.h
 *		Addresses of clients, and how many requests each has at once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_ADDRESS_H
#define GATEWAY_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

struct Request;
typedef struct AddressUse AddressUse;

/* Room for the text of an address, with its NUL. */
#define ADDRESS_SIZE 48

/* Writes the client's address: that of the connection, or that which a trusted proxy names. */
extern void address_text(const struct Request *request, char *text);

/*
 * Counts a request of its address in "use".  Returns false if the address has
 * max_requests_per_address already, or if memory is out; then there is nothing to leave.
 */
extern bool address_enter(const struct Request *request, AddressUse **use);

/* Counts it off; NULL is allowed. */
extern void address_leave(AddressUse *use);

/* How many addresses have requests under way, as far as these are counted. */
extern int	address_count(void);

#endif							/* GATEWAY_ADDRESS_H */
