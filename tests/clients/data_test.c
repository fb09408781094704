/* data_test.c -- gradctl reads MNIST's files and transforms pictures as PyTorch does. */
#include "tests/support.h"

#include <math.h>
#include <zlib.h>

#include "clients/ctl/ctl.h"
#include "clients/ctl/data.h"
#include "tests/daemon.h"

/* 2 pictures of 2 rows and 3 columns; their labels. */
static const unsigned char pictures[] = {0, 0, 8, 3, 0,  0,   0,   2,   0, 0, 0, 2, 0, 0,
                                         0, 3, 0, 1, 37, 128, 254, 255, 9, 8, 7, 6, 5, 4};
static const unsigned char labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 7, 3};

static void write_gzip(const test_folder *folder, const char *name, const void *data, unsigned size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    gzFile file = gzopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, data, size), size);
    assert_int_equal(gzclose(file), Z_OK);
}

static void plain_and_gzipped_files_are_read_alike(void **state) {
    (void)state;
    test_folder folder;
    char path[512];
    test_folder_make(&folder);
    test_folder_write(&folder, "train-images-idx3-ubyte", pictures, sizeof pictures, path);
    test_folder_write(&folder, "train-labels-idx1-ubyte", labels, sizeof labels, path);
    write_gzip(&folder, "t10k-images-idx3-ubyte.gz", pictures, sizeof pictures);
    write_gzip(&folder, "t10k-labels-idx1-ubyte.gz", labels, sizeof labels);
    for (int i = 0; i < 2; i++) {
        ctl_images images;
        assert_int_equal(ctl_images_read(folder.path, i ? "t10k" : "train", &images), CTL_OK);
        assert_int_equal(images.count, 2);
        assert_int_equal(images.channels, 1);
        assert_int_equal(images.height, 2);
        assert_int_equal(images.width, 3);
        assert_memory_equal(images.bytes, pictures + 16, 12);
        assert_int_equal(images.labels[0], 7);
        assert_int_equal(images.labels[1], 3);
        ctl_images_release(&images);
    }
    test_folder_remove(&folder);
}

static void assert_refused(const void *images, size_t images_size, const void *their_labels,
                           size_t labels_size) {
    test_folder folder;
    char path[512];
    ctl_images read = {0};
    test_folder_make(&folder);
    if (images) {
        test_folder_write(&folder, "train-images-idx3-ubyte", images, images_size, path);
    }
    test_folder_write(&folder, "train-labels-idx1-ubyte", their_labels, labels_size, path);
    assert_int_equal(ctl_images_read(folder.path, "train", &read), CTL_ERROR);
    assert_null(read.bytes);
    test_folder_remove(&folder);
}

static void missing_cut_and_mismatched_files_are_refused(void **state) {
    (void)state;
    static const unsigned char one_label[] = {0, 0, 8, 1, 0, 0, 0, 1, 7};
    assert_refused(NULL, 0, labels, sizeof labels);
    assert_refused(pictures, sizeof pictures - 1, labels, sizeof labels);
    assert_refused(pictures, sizeof pictures, one_label, sizeof one_label);
    assert_refused(labels, sizeof labels, labels, sizeof labels);
    assert_refused(pictures, sizeof pictures, pictures, sizeof pictures);
}

/* One picture of one channel, in memory that ctl_images_release() frees. */
static ctl_images picture(int64_t height, int64_t width, const unsigned char *bytes) {
    ctl_images images = {.count = 1, .channels = 1, .height = height, .width = width};
    images.bytes = malloc((size_t)(height * width));
    assert_non_null(images.bytes);
    memcpy(images.bytes, bytes, (size_t)(height * width));
    return images;
}

/* torch.tensor([0, 1, 37, 128, 254, 255]).float().mul(1 / 255).sub(0.1307).div(0.3081) */
static void pixels_become_torchs_floats_to_the_bit(void **state) {
    (void)state;
    static const float expected[] = {-0.424212962f, -0.411484718f, 0.0467317067f,
                                     1.20500112f,   2.80875874f,   2.82148671f};
    ctl_images images = picture(2, 3, pictures + 16);
    ctl_transform transform = {.scale = (float)(1.0 / 255), .mean = 0.1307f, .std = 0.3081f};
    assert_int_equal(ctl_images_transform(&transform, &images), CTL_OK);
    assert_memory_equal(images.values, expected, sizeof expected);
    ctl_images_release(&images);
}

static void padding_is_normalised_like_any_pixel(void **state) {
    (void)state;
    ctl_images images = picture(1, 2, (const unsigned char[]){10, 20});
    ctl_transform transform = {.pad = 1, .scale = 1, .mean = 2, .std = 2};
    assert_int_equal(ctl_images_transform(&transform, &images), CTL_OK);
    static const float expected[3][4] = {{-1, -1, -1, -1}, {-1, 4, 9, -1}, {-1, -1, -1, -1}};
    assert_int_equal(images.height, 3);
    assert_int_equal(images.width, 4);
    assert_memory_equal(images.values, expected, sizeof expected);
    ctl_images_release(&images);
}

/* F.interpolate(x, size=..., mode="bilinear", align_corners=False), PyTorch 1.13.1 */
static void resizing_is_torchs(void **state) {
    (void)state;
    static const unsigned char bytes[] = {0, 64, 128, 255, 32, 7, 9, 200, 100};
    static const struct {
        int64_t height, width;
        float values[20];
    } cases[] = {
        {5, 4, {0,           40,          88,       128,         102.000008f, 70.25f,      61.8499985f,
                79.5999985f, 254.999985f, 115.625f, 22.6250076f, 7.00000572f, 107.399979f, 123.275002f,
                106.550011f, 62.8000107f, 9,        128.375f,    162.5f,      100}},
        {2, 2, {61.8125f, 87.3125f, 92.375f, 97.0625f}},
    };
    for (size_t i = 0; i < 2; i++) {
        ctl_images images = picture(3, 3, bytes);
        ctl_transform transform = {.height = cases[i].height, .width = cases[i].width, .scale = 1, .std = 1};
        assert_int_equal(ctl_images_transform(&transform, &images), CTL_OK);
        assert_int_equal(images.height, cases[i].height);
        assert_int_equal(images.width, cases[i].width);
        for (int64_t k = 0; k < cases[i].height * cases[i].width; k++) {
            assert_true(fabsf(images.values[k] - cases[i].values[k]) <= 1e-4f);
        }
        ctl_images_release(&images);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_and_gzipped_files_are_read_alike),
        cmocka_unit_test(missing_cut_and_mismatched_files_are_refused),
        cmocka_unit_test(pixels_become_torchs_floats_to_the_bit),
        cmocka_unit_test(padding_is_normalised_like_any_pixel),
        cmocka_unit_test(resizing_is_torchs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
