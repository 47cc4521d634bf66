/* Postgres' disk is slow: while the file that SLOW_SYNC names is there, each sync of data takes a
 * tenth of a second longer. To be loaded before the library that has the call (LD_PRELOAD). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_postgres;

/* Its processes write over their names later. */
__attribute__((constructor)) static void look(void) {
    is_postgres = !strcmp(program_invocation_short_name, "postgres");
}

int fdatasync(int file) {
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *slow = getenv("SLOW_SYNC");
    if (is_postgres && slow && !access(slow, F_OK)) usleep(100000);
    return sync(file);
}
