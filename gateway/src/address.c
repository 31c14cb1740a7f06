/*-------------------------------------------------------------------------
 *
 * address.c
 *		Addresses of clients, and how many requests each has at once.
 *
 * The address is that of the connection.  Behind a proxy all connections have the
 * proxy's address; then, if trust_proxy is on, it is the last one of X-Forwarded-For,
 * which is the one that the proxy itself has added.  The ones before it are what the
 * client says.
 *
 * A client with IPv6 has a network of 64 bits, so addresses of one such network count
 * as one.  Only addresses with requests under way are kept, in a table of chains.
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "config.h"
#include "hash.h"
#include "request.h"

#define ADDRESS_CHAINS 1024

/* An address of either kind as one of IPv6. */
typedef struct in6_addr Address;

struct AddressUse
{
	Address		network;
	int64_t		count;
	AddressUse *next;
};

static AddressUse *address_chains[ADDRESS_CHAINS];
static int	kept_addresses;

/* ::ffff:a.b.c.d */
static Address
address_of_ipv4(struct in_addr ipv4)
{
	Address		address = {{{0}}};

	address.s6_addr[10] = 0xFF;
	address.s6_addr[11] = 0xFF;
	memcpy(&address.s6_addr[12], &ipv4, sizeof(ipv4));
	return address;
}

static bool
address_parse(const char *text, Address *address)
{
	struct in_addr ipv4;

	if (inet_pton(AF_INET6, text, address) == 1)
		return true;
	if (inet_pton(AF_INET, text, &ipv4) != 1)
		return false;
	*address = address_of_ipv4(ipv4);
	return true;
}

/* The last address of a header X-Forwarded-For. */
static bool
address_of_proxy(const char *header, Address *address)
{
	char		text[ADDRESS_SIZE];
	const char *last = header ? strrchr(header, ',') : NULL;
	size_t		length;

	if (header == NULL)
		return false;
	last = last ? last + 1 : header;
	last += strspn(last, " \t");
	length = strcspn(last, " \t");
	if (length >= sizeof(text))
		return false;
	memcpy(text, last, length);
	text[length] = '\0';
	return address_parse(text, address);
}

static Address
address_of(const Request *request)
{
	Address		address = {{{0}}};
	const union MHD_ConnectionInfo *info;
	const struct sockaddr *peer;

	if (config.trust_proxy && address_of_proxy(request_header(request, "X-Forwarded-For"), &address))
		return address;
	info = MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	peer = info ? info->client_addr : NULL;
	if (peer != NULL && peer->sa_family == AF_INET6)
		return ((const struct sockaddr_in6 *) peer)->sin6_addr;
	if (peer != NULL && peer->sa_family == AF_INET)
		return address_of_ipv4(((const struct sockaddr_in *) peer)->sin_addr);
	return address;
}

void
address_text(const Request *request, char *text)
{
	Address		address = address_of(request);
	bool		is_ipv4 = IN6_IS_ADDR_V4MAPPED(&address);

	if (inet_ntop(is_ipv4 ? AF_INET : AF_INET6, is_ipv4 ? &address.s6_addr[12] : address.s6_addr, text,
				  ADDRESS_SIZE) == NULL)
		text[0] = '\0';
}

static Address
address_network(Address address)
{
	if (!IN6_IS_ADDR_V4MAPPED(&address))
		memset(&address.s6_addr[8], 0, 8);
	return address;
}

/* A client that fills one chain has as many addresses as the chain is long. */
static AddressUse **
address_chain(const Address *network)
{
	return &address_chains[hash_bytes(HASH_START, network, sizeof(*network)) % ADDRESS_CHAINS];
}

bool
address_enter(const Request *request, AddressUse **use)
{
	Address		network;
	AddressUse **chain;
	AddressUse *entry;

	*use = NULL;
	if (config.max_requests_per_address == 0)
		return true;
	network = address_network(address_of(request));
	chain = address_chain(&network);
	for (entry = *chain; entry != NULL; entry = entry->next)
	{
		if (memcmp(&entry->network, &network, sizeof(network)) == 0)
			break;
	}
	if (entry == NULL)
	{
		entry = calloc(1, sizeof(AddressUse));
		if (entry == NULL)
			return false;
		entry->network = network;
		entry->next = *chain;
		*chain = entry;
		kept_addresses++;
	}
	else if (entry->count >= config.max_requests_per_address)
		return false;
	entry->count++;
	*use = entry;
	return true;
}

void
address_leave(AddressUse *use)
{
	AddressUse **link;

	if (use == NULL || --use->count > 0)
		return;
	link = address_chain(&use->network);
	while (*link != use)
		link = &(*link)->next;
	*link = use->next;
	free(use);
	kept_addresses--;
}

int
address_count(void)
{
	return kept_addresses;
}
