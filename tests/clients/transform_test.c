/* transform_test.c -- gradctl and the engine make the same of pictures, to the bit: a job on the daemon
 * begins where a training by gradctl would. */
#include <stdlib.h>
#include <string.h>

#include "clients/ctl/ctl.h"
#include "clients/ctl/data.h"
#include "tests/support.h"

enum { COUNT = 20 };

static uint8_t *digits(void) {
    uint8_t *pixels = malloc((size_t)COUNT * GD_DIGITS_SIDE * GD_DIGITS_SIDE);
    assert_non_null(pixels);
    gd_digits(false, 0, COUNT, pixels, NULL);
    return pixels;
}

static void expect_alike(const ctl_transform *ctl, const gd_transform *engine) {
    ctl_images images = {COUNT, 1, GD_DIGITS_SIDE, GD_DIGITS_SIDE, digits(), NULL, NULL};
    uint8_t *pixels = digits();
    const gd_tensor rows = {GD_UINT8, TEST_SHAPE(COUNT, GD_DIGITS_SIDE, GD_DIGITS_SIDE), pixels};
    const gd_shape sample = TEST_SHAPE(GD_DIGITS_SIDE, GD_DIGITS_SIDE);
    gd_shape shape;
    gd_error error = GD_ERROR_INIT;
    assert_int_equal(ctl_images_transform(ctl, &images), CTL_OK);
    test_ok(gd_transform_shape(engine, &sample, &shape, &error), &error);
    assert_int_equal(gd_numel(&shape), images.height * images.width);
    const size_t bytes = (size_t)(COUNT * gd_numel(&shape)) * sizeof(float);
    float *out = malloc(bytes), *scratch = malloc(gd_transform_scratch(engine, &sample) * sizeof *scratch);
    assert_non_null(out);
    assert_non_null(scratch);
    gd_transform_rows(engine, &rows, NULL, COUNT, 0, false, scratch, out);
    assert_memory_equal(out, images.values, bytes);
    free(out);
    free(scratch);
    free(pixels);
    ctl_images_release(&images);
}

static const double mean = 0.1307, std = 0.3081;

static void padded_pictures_are_alike(void **state) {
    (void)state;
    const ctl_transform ctl = {.pad = 2, .scale = 1.0F / 255, .mean = (float)mean, .std = (float)std};
    const gd_transform engine = {
        .pad = 2, .scale = 1.0F / 255, .mean = &mean, .mean_count = 1, .std = &std, .std_count = 1};
    expect_alike(&ctl, &engine);
}

static void resized_pictures_are_alike(void **state) {
    (void)state;
    static const int64_t sides[][2] = {{32, 32}, {14, 20}, {28, 41}, {1, 1}, {28, 28}};
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        const ctl_transform ctl = {
            .height = sides[i][0], .width = sides[i][1], .scale = 1.0F / 255, .mean = (float)mean, .std = 1};
        const gd_transform engine = {
            .resize = {sides[i][0], sides[i][1]}, .scale = 1.0F / 255, .mean = &mean, .mean_count = 1};
        expect_alike(&ctl, &engine);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(padded_pictures_are_alike),
        cmocka_unit_test(resized_pictures_are_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
