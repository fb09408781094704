/* data.h -- pictures with labels: read from MNIST's files or fetched from the daemon, then transformed. */
#ifndef GRADD_CTL_DATA_H
#define GRADD_CTL_DATA_H

#include <stdint.h>

#include "clients/c/gradd.h"

/** A split as it came, and after ctl_images_transform() as the model gets it. */
typedef struct ctl_images {
    int64_t count, channels, height, width;
    uint8_t *bytes;  /* (count, channels, height, width), or NULL */
    float *values;   /* the same, or NULL; one of the two is there */
    int64_t *labels; /* (count) */
} ctl_images;

/** What happens to each picture, in this order. */
typedef struct ctl_transform {
    int64_t pad;            /* zero pixels added on each side */
    int64_t height, width;  /* or: resize to; 0: as it is */
    float scale, mean, std; /* (x * scale - mean) / std, in float32 and in this order */
} ctl_transform;

void ctl_images_release(ctl_images *images);

/** Read DIR/{stem}-images-idx3-ubyte and DIR/{stem}-labels-idx1-ubyte, or the same with ".gz".
 *  @param stem "train" or "t10k"
 *  @return CTL_OK, or an exit status after a message */
int ctl_images_read(const char *directory, const char *stem, ctl_images *ret_images);

/** Fetch a split of one of the daemon's datasets, page by page. */
int ctl_images_fetch(gradd_client *client, const char *dataset, const char *split, ctl_images *ret_images);

/**
 * Transform all pictures into images->values.
 *
 * Padding comes before the arithmetic, so padded pixels are (0 * scale - mean) / std, as with torchvision's
 * Pad, ToTensor, Normalize. Resizing equals F.interpolate(mode="bilinear", align_corners=False).
 */
int ctl_images_transform(const ctl_transform *transform, ctl_images *images);

#endif
