/* The rouse program: a host, its command line, an exit code. Everything else is the library. */
#include <stdio.h>
#include <stdlib.h>

#include "rouse.h"

int main(int argc, char *argv[])
{
    int code = 70;
    struct rouse *rouse = rouse_new();
    if (rouse == NULL)
        fprintf(stderr, "rouse: out of memory\n");
    else
        code = rouse_main(rouse, argc, (const char *const *)argv);
    rouse_free(rouse);
    if (fflush(stdout) != 0 && code == 0)
        code = 1;
    return code;
}
