/*-------------------------------------------------------------------------
 *
 * loop.c
 *		The one epoll that everything waits on, and the timers.
 *
 * A round is: wait, call back what is ready, call back the timers that are due,
 * and the idle callback.  Timers are a binary heap by their time; each knows its
 * place, so that it can be stopped.  An entry that is removed in a round is freed
 * at its end, since epoll may have reported it already.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"

#define EVENTS_PER_ROUND	256

struct LoopFd
{
	int			fd;
	LoopFdCallback callback;	/* NULL: removed */
	void	   *arg;
	LoopFd	   *next_removed;
};

static int	epoll_fd = -1;
static bool stopped;
static int64_t now;
static LoopFd *removed;
static LoopTimer **heap;		/* heap[1] is due first */
static int	heap_count;
static int	heap_capacity;
static LoopIdleCallback idle;

static void
loop_update_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now = (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

bool
loop_init(void)
{
	loop_update_now();
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return epoll_fd >= 0;
}

int64_t
loop_now(void)
{
	return now;
}

LoopFd *
loop_add_fd(int fd, uint32_t events, LoopFdCallback callback, void *arg)
{
	LoopFd	   *entry = malloc(sizeof(LoopFd));
	struct epoll_event event = {.events = events};

	if (entry == NULL)
		return NULL;
	*entry = (LoopFd) {.fd = fd, .callback = callback, .arg = arg};
	event.data.ptr = entry;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0)
		return entry;
	free(entry);
	return NULL;
}

bool
loop_change_fd(LoopFd *entry, uint32_t events)
{
	struct epoll_event event = {.events = events};

	event.data.ptr = entry;
	return epoll_ctl(epoll_fd, EPOLL_CTL_MOD, entry->fd, &event) == 0;
}

void
loop_remove_fd(LoopFd *entry)
{
	if (entry == NULL)
		return;
	epoll_ctl(epoll_fd, EPOLL_CTL_DEL, entry->fd, NULL);
	entry->callback = NULL;
	entry->next_removed = removed;
	removed = entry;
}

/*
 * Timers
 */

static void
heap_put(LoopTimer *timer, int place)
{
	heap[place] = timer;
	timer->place = place;
}

static void
heap_rise(LoopTimer *timer, int place)
{
	while (place > 1 && heap[place / 2]->due > timer->due)
	{
		heap_put(heap[place / 2], place);
		place /= 2;
	}
	heap_put(timer, place);
}

static void
heap_sink(LoopTimer *timer, int place)
{
	for (;;)
	{
		int			child = place * 2;

		if (child > heap_count)
			break;
		if (child < heap_count && heap[child + 1]->due < heap[child]->due)
			child++;
		if (heap[child]->due >= timer->due)
			break;
		heap_put(heap[child], place);
		place = child;
	}
	heap_put(timer, place);
}

static bool
heap_grow(void)
{
	int			capacity = heap_capacity ? heap_capacity * 2 : 64;
	LoopTimer **grown;

	if (heap_count + 1 < heap_capacity)
		return true;
	grown = realloc(heap, (size_t) capacity * sizeof(LoopTimer *));
	if (grown == NULL)
		return false;
	heap = grown;
	heap_capacity = capacity;
	return true;
}

bool
loop_timer_start(LoopTimer *timer, int64_t delay, LoopTimerCallback callback, void *arg)
{
	loop_timer_stop(timer);
	if (!heap_grow())
		return false;
	timer->due = now + (delay > 0 ? delay : 0);
	timer->callback = callback;
	timer->arg = arg;
	heap_rise(timer, ++heap_count);
	return true;
}

void
loop_timer_stop(LoopTimer *timer)
{
	int			place = timer->place;
	LoopTimer  *last;

	if (place == 0)
		return;
	timer->place = 0;
	last = heap[heap_count--];
	if (last == timer)
		return;
	if (place > 1 && heap[place / 2]->due > last->due)
		heap_rise(last, place);
	else
		heap_sink(last, place);
}

/* A timer that is started again with no delay waits for the next round. */
static void
loop_run_timers(void)
{
	for (int budget = heap_count; budget > 0 && heap_count > 0; budget--)
	{
		LoopTimer  *timer = heap[1];

		if (timer->due > now)
			break;
		loop_timer_stop(timer);
		timer->callback(timer->arg);
	}
}

/*
 * Rounds
 */

void
loop_set_idle(LoopIdleCallback callback)
{
	idle = callback;
}

static int
loop_sleep_ms(void)
{
	int64_t		ms = idle ? idle() : -1;

	if (stopped)
		return 0;
	if (heap_count > 0)
	{
		int64_t		timer_ms = heap[1]->due - now;

		if (timer_ms < 0)
			timer_ms = 0;
		if (ms < 0 || timer_ms < ms)
			ms = timer_ms;
	}
	return ms > 60000 ? 60000 : (int) ms;
}

static void
loop_free_removed(void)
{
	while (removed != NULL)
	{
		LoopFd	   *entry = removed;

		removed = entry->next_removed;
		free(entry);
	}
}

void
loop_run(void)
{
	struct epoll_event events[EVENTS_PER_ROUND];

	stopped = false;
	while (!stopped)
	{
		int			count = epoll_wait(epoll_fd, events, EVENTS_PER_ROUND, loop_sleep_ms());

		loop_update_now();
		if (count < 0 && errno != EINTR)
		{
			log_message(LOG_LEVEL_ERROR, "loop", "epoll_wait failed: %s", strerror(errno));
			return;
		}
		for (int i = 0; i < count; i++)
		{
			LoopFd	   *entry = events[i].data.ptr;

			if (entry->callback != NULL)
				entry->callback(events[i].events, entry->arg);
		}
		loop_run_timers();
		loop_free_removed();
	}
}

void
loop_stop(void)
{
	stopped = true;
}

void
loop_free(void)
{
	loop_free_removed();
	close(epoll_fd);
	free(heap);
	heap = NULL;
	heap_count = heap_capacity = 0;
}
