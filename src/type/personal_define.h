/*-------------------------------------------------------------------------
 *
 * personal_define.h
 *		Defining which attributes of a type are about a person.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_PERSONAL_DEFINE_H
#define EVENTSTORE_PERSONAL_DEFINE_H

#include "type/type.h"

/* personal_define.c */

/* Attributes of a type that are to be personal. */
typedef struct PersonalDefinition
{
	Oid			log;
	text	   *type;
	text	   *category;		/* NULL: all */
	text	   *subject;		/* NULL: the stream's id */
	ArrayType  *attributes;		/* none: they are given up */
} PersonalDefinition;

/* Stores it.  The type is defined; SPI is connected.  Errors: an attribute cannot be personal. */
extern void personal_define(const PersonalDefinition *definition);

/* Refuses to define a type anew without its personal attributes, or to drop it. */
extern void personal_refuse_forgotten(Oid log, text *type);

/* attribute_index.c */

/* Returns true if es_index_attribute() has made the index. */
extern bool attribute_index_exists(Oid log, const char *type, const char *attribute);

#endif							/* EVENTSTORE_PERSONAL_DEFINE_H */
