/* watch.h -- follow a job that trains in the daemon. */
#ifndef GRADD_CTL_WATCH_H
#define GRADD_CTL_WATCH_H

#include "ctl.h"

/** Show a job's progress until it ends, then how it ended. Ctrl-C leaves it running. @return exit status */
int ctl_watch(gradd_client *client, const ctl_options *options, int64_t job);

#endif
