/* dataset.h -- what data put and data fetch share. */
#ifndef GRADD_CTL_DATASET_H
#define GRADD_CTL_DATASET_H

#include "ctl.h"

/** A file and where it goes. */
typedef struct ctl_upload {
    char path[4096];
    char split[65];
    const char *part; /* NULL: both */
} ctl_upload;

/** Upload a file and print what it is now. @return exit status */
int ctl_upload_file(gradd_client *client, const ctl_options *options, const char *dataset,
                    const ctl_upload *upload);

#endif
