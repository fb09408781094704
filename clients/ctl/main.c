/* main.c -- gradctl's entry; everything else is in ctl.c, so that tests can link it. */
#include "ctl.h"

int main(int argc, char **argv) {
    return ctl_run(argc, argv);
}
