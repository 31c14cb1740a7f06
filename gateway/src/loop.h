/*-------------------------------------------------------------------------
 *
 * loop.h
 *		The one epoll that everything waits on, and the timers.
 *
 * Callbacks may add, change, remove, start and stop anything, themselves
 * included.  A callback of something that was removed is not called any more.
 *
 *-------------------------------------------------------------------------
 */
#ifndef GATEWAY_LOOP_H
#define GATEWAY_LOOP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct LoopFd LoopFd;
typedef void (*LoopFdCallback) (uint32_t events, void *arg);
typedef void (*LoopTimerCallback) (void *arg);

/* Part of whatever has a timer; all zero is a timer that is not running. */
typedef struct LoopTimer
{
	int64_t		due;			/* in ms of loop_now() */
	int			place;			/* in the heap, from 1; 0: not running */
	LoopTimerCallback callback;
	void	   *arg;
} LoopTimer;

extern bool loop_init(void);

/* Runs until loop_stop is called. */
extern void loop_run(void);
extern void loop_stop(void);

/* Frees what the loop has, at the end of the program. */
extern void loop_free(void);

/* Milliseconds of the monotonic clock, as of the last return from epoll_wait. */
extern int64_t loop_now(void);

/* Waits for EPOLLIN, EPOLLOUT, ...; returns NULL if it cannot. */
extern LoopFd *loop_add_fd(int fd, uint32_t events, LoopFdCallback callback, void *arg);
extern bool loop_change_fd(LoopFd *entry, uint32_t events);

/* Before the descriptor is closed. */
extern void loop_remove_fd(LoopFd *entry);

/* Calls back once, so many ms from now (0: in this or the next round); restarts a running timer. */
extern bool loop_timer_start(LoopTimer *timer, int64_t delay, LoopTimerCallback callback, void *arg);
extern void loop_timer_stop(LoopTimer *timer);

/* Calls back at the end of every round, before the loop sleeps; returns the ms that it may sleep, or -1. */
typedef int64_t (*LoopIdleCallback) (void);
extern void loop_set_idle(LoopIdleCallback callback);

#endif
