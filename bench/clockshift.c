/* A clock that is wrong by CLOCK_SHIFT seconds, for one process and its children (LD_PRELOAD).
 *
 * Only the time of day is shifted. Monotonic time, by which programs wait, is left alone, and so
 * are the times of files.
 */

#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int code = syscall(SYS_clock_gettime, clock, now);
    const char *seconds = getenv("CLOCK_SHIFT");

    if (code == 0 && seconds != NULL
            && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += atol(seconds);
    return code;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;

    (void) zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place)
{
    struct timespec exact;

    clock_gettime(CLOCK_REALTIME, &exact);
    if (place != NULL)
        *place = exact.tv_sec;
    return exact.tv_sec;
}
