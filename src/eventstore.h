/*-------------------------------------------------------------------------
 *
 * eventstore.h
 *		SQLSTATEs and limits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef EVENTSTORE_H
#define EVENTSTORE_H

/* Error class ES is ours; doc/reference/errors.md lists the codes. */
#define ERRCODE_ES_WRONG_EXPECTED_VERSION	MAKE_SQLSTATE('E','S','0','0','1')
#define ERRCODE_ES_DUPLICATE_EVENT			MAKE_SQLSTATE('E','S','0','0','2')
#define ERRCODE_ES_STREAM_CLOSED			MAKE_SQLSTATE('E','S','0','0','3')
#define ERRCODE_ES_INVALID_EVENT			MAKE_SQLSTATE('E','S','0','0','4')
#define ERRCODE_ES_PROJECTION_FAILED		MAKE_SQLSTATE('E','S','0','0','5')
#define ERRCODE_ES_NOT_CLAIMED				MAKE_SQLSTATE('E','S','0','0','6')
#define ERRCODE_ES_CONDITION_FAILED			MAKE_SQLSTATE('E','S','0','0','7')
#define ERRCODE_ES_SUBJECT_ERASED			MAKE_SQLSTATE('E','S','0','0','8')
#define ERRCODE_ES_WRONG_SHARD				MAKE_SQLSTATE('E','S','0','0','9')

/*
 * A stream's name is a key of two B-tree indexes, whose entries must fit a
 * third of a page: 2,704 bytes, less headers, the version and the alignment.
 */
#define ES_MAX_STREAM_LENGTH	2048

/* A transaction that needs more locks on streams locks the log instead. */
#define ES_MAX_LOG_LOCKS		1000

/* A type's name is a word, not a text: it becomes part of other names. */
#define ES_MAX_TYPE_LENGTH		255

/* Tags of an event, and bytes of one; doc/guide/tag.md names both limits. */
#define ES_MAX_TAGS				64
#define ES_MAX_TAG_LENGTH		255

/* The tag of a subject's events begins so; bytes of the subject's name. */
#define ES_SUBJECT_TAG			"es_subject:"
#define ES_MAX_SUBJECT_LENGTH	(ES_MAX_TAG_LENGTH - 11)

/* Events of a conditional append. */
#define ES_MAX_CONDITIONAL		1000

/* Items of a query. */
#define ES_MAX_QUERY_ITEMS		64

/* Bytes of an event's body, whose hexadecimal form must fit a row of text. */
#define ES_MAX_BODY				(256 * 1024 * 1024)

/* Names of streams and types that begin so are the store's own. */
#define ES_RESERVED_PREFIX		"es_"

/* The event that says that a subject was erased, and the category of its stream. */
#define ES_SUBJECT_ERASED		"es_subject_erased"
#define ES_ERASED_CATEGORY		"es_subject"

/* More events in one call go through es_import. */
#define ES_MAX_BATCH			1000000

/* Slots of streams, where a log is spread over several stores. */
#define ES_SLOTS				1024

/* The last bits of a token are the number of its partition. */
#define ES_MAX_PARTITIONS		1024

#endif							/* EVENTSTORE_H */
