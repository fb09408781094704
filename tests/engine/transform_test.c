/* transform_test.c -- samples become what PyTorch makes of them; what is random depends on seed, epoch and
 * row; what does not fit is refused. */
#include <stdlib.h>
#include <string.h>

#include "tests/support.h"

enum { SEED = 5 };

static test_golden golden;

static size_t read_numbers(const json_t *json, double numbers[8]) {
    const size_t count = json_array_size(json);
    for (size_t i = 0; i < count; i++)
        numbers[i] = json_number_value(json_array_get(json, i));
    return count;
}

static void read_sides(const json_t *json, int64_t sides[2]) {
    for (size_t i = 0; i < json_array_size(json); i++)
        sides[i] = json_integer_value(json_array_get(json, i));
}

/* @param numbers room for mean and std */
static gd_transform transform_of(const json_t *json, double numbers[2][8]) {
    gd_transform t = {
        .pad = json_integer_value(json_object_get(json, "pad")),
        .crop_pad = json_integer_value(json_object_get(json, "crop_pad")),
        .flip = json_number_value(json_object_get(json, "flip")),
        .shift = json_integer_value(json_object_get(json, "shift")),
        .scale = json_number_value(json_object_get(json, "scale")),
        .mean = numbers[0],
        .std = numbers[1],
        .mean_count = read_numbers(json_object_get(json, "mean"), numbers[0]),
        .std_count = read_numbers(json_object_get(json, "std"), numbers[1]),
        .seed = SEED,
    };
    read_sides(json_object_get(json, "resize"), t.resize);
    read_sides(json_object_get(json, "crop"), t.crop);
    return t;
}

/* The golden rows, int64 or float32, in another dtype; free(.data). */
static gd_tensor in_dtype(const gd_tensor *from, gd_dtype dtype) {
    const int64_t count = gd_numel(&from->shape);
    gd_tensor to = {dtype, from->shape, malloc((size_t)count * gd_dtype_size(dtype))};
    assert_non_null(to.data);
    for (int64_t i = 0; i < count; i++) {
        const double value =
            from->dtype == GD_INT64 ? (double)((int64_t *)from->data)[i] : (double)((float *)from->data)[i];
        switch (dtype) {
        case GD_FLOAT32:
            ((float *)to.data)[i] = (float)value;
            break;
        case GD_FLOAT64:
            ((double *)to.data)[i] = value;
            break;
        case GD_INT64:
            ((int64_t *)to.data)[i] = (int64_t)value;
            break;
        case GD_INT32:
            ((int32_t *)to.data)[i] = (int32_t)value;
            break;
        case GD_UINT8:
            ((uint8_t *)to.data)[i] = (uint8_t)value;
            break;
        }
    }
    return to;
}

/* Rows `indices` (NULL: all) transformed; free(.data). Memory is as large as was said, for ASan to see. */
static gd_tensor run(const gd_transform *t, const gd_tensor *rows, const int64_t *indices, int64_t count,
                     uint64_t epoch, bool augment) {
    gd_shape sample = {.rank = rows->shape.rank - 1};
    memcpy(sample.dim, rows->shape.dim + 1, (size_t)sample.rank * sizeof *sample.dim);
    gd_tensor out = {.dtype = GD_FLOAT32};
    gd_shape shape;
    gd_error error = GD_ERROR_INIT;
    test_ok(gd_transform_shape(t, &sample, &shape, &error), &error);
    out.shape.rank = shape.rank + 1;
    out.shape.dim[0] = count;
    memcpy(out.shape.dim + 1, shape.dim, (size_t)shape.rank * sizeof *shape.dim);
    float *scratch = malloc(gd_transform_scratch(t, &sample) * sizeof *scratch);
    out.data = malloc((size_t)gd_numel(&out.shape) * sizeof(float));
    assert_non_null(scratch);
    assert_non_null(out.data);
    memset(out.data, 0xff, (size_t)gd_numel(&out.shape) * sizeof(float)); /* NaN */
    gd_transform_rows(t, rows, indices, count, epoch, augment, scratch, out.data);
    free(scratch);
    return out;
}

static void expect_golden(const gd_transform *t, const gd_tensor *rows, const char *name, const char *what,
                          uint64_t epoch, bool augment) {
    const gd_tensor expected = test_golden_get(&golden, "%s/%s", name, what);
    gd_tensor out = run(t, rows, NULL, rows->shape.dim[0], epoch, augment);
    test_close(&expected, &out, t->resize[0] ? 1e-5 : 1e-6, name);
    free(out.data);
}

/* Whole numbers are the same in every dtype. */
static void samples_become_what_pytorch_makes_of_them(void **state) {
    (void)state;
    json_t *cases = test_golden_json("transform.json"), *row;
    const char *name;
    json_object_foreach(cases, name, row) {
        double numbers[2][8];
        const gd_transform t = transform_of(json_object_get(row, "transform"), numbers);
        const gd_tensor given = test_golden_get(&golden, "%s/rows", name);
        const char *wanted = json_string_value(json_object_get(row, "dtype"));
        static const gd_dtype dtypes[] = {GD_FLOAT32, GD_FLOAT64, GD_INT64, GD_INT32, GD_UINT8};
        for (size_t d = 0; d < sizeof dtypes / sizeof *dtypes; d++) {
            if (given.dtype == GD_FLOAT32 && strncmp(gd_dtype_name(dtypes[d]), "float", 5) != 0)
                continue;
            assert_true(given.dtype == GD_INT64 || strcmp(wanted, "float32") == 0);
            gd_tensor rows = in_dtype(&given, dtypes[d]);
            expect_golden(&t, &rows, name, "plain", 0, false);
            expect_golden(&t, &rows, name, "plain", 3, false);
            expect_golden(&t, &rows, name, "0", 0, true);
            expect_golden(&t, &rows, name, "3", 3, true);
            free(rows.data);
        }
    }
    json_decref(cases);
}

static const gd_transform augmenting = {.crop = {8, 8}, .crop_pad = 3, .flip = 0.5, .shift = 2, .seed = 11};

static void a_row_is_the_same_in_any_batch(void **state) {
    (void)state;
    enum { ROWS = 40 };
    static const int64_t order[] = {39, 3, 3, 17, 0};
    gd_tensor rows = test_random(TEST_SHAPE(ROWS, 2, 9, 10), 1);
    gd_tensor all = run(&augmenting, &rows, NULL, ROWS, 2, true),
              some = run(&augmenting, &rows, order, 5, 2, true);
    const size_t bytes = 2 * 8 * 8 * sizeof(float);
    for (size_t i = 0; i < 5; i++)
        assert_memory_equal((char *)some.data + i * bytes, (char *)all.data + (size_t)order[i] * bytes,
                            bytes);
    free(rows.data);
    free(all.data);
    free(some.data);
}

/* How often each of `count` numbers of pixels below `most` comes; no less often than half of the mean. */
static void expect_spread(const int *seen, int count, int total, const char *what) {
    for (int i = 0; i < count; i++)
        if (seen[i] < total / count / 2)
            fail_msg("%s %d comes %d times of %d", what, i, seen[i], total);
}

/* Pictures whose pixels tell where they come from. */
static void every_place_and_both_sides_come_up(void **state) {
    (void)state;
    enum { ROWS = 700 };
    const gd_transform t = {.crop = {3, 2}, .flip = 0.5, .seed = 1};
    uint8_t *pixels = malloc(ROWS * 5 * 8);
    assert_non_null(pixels);
    for (int i = 0; i < ROWS * 5 * 8; i++)
        pixels[i] = (uint8_t)(i % 40);
    const gd_tensor rows = {GD_UINT8, TEST_SHAPE(ROWS, 5, 8), pixels};
    gd_tensor out = run(&t, &rows, NULL, ROWS, 0, true), next = run(&t, &rows, NULL, ROWS, 1, true);
    int tops[3] = {0}, lefts[7] = {0}, flips[2] = {0}, same = 0;
    for (int i = 0; i < ROWS; i++) {
        const float *piece = (const float *)out.data + (ptrdiff_t)i * 6;
        const int flipped = piece[1] < piece[0], corner = (int)piece[flipped];
        assert_float_equal(piece[4] - piece[0], 16, 0);
        flips[flipped]++;
        tops[corner / 8]++;
        lefts[corner % 8]++;
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison,cert-exp42-c,cert-flp37-c): to the bit */
        same += memcmp(piece, (const float *)next.data + (ptrdiff_t)i * 6, 6 * sizeof *piece) == 0;
    }
    expect_spread(tops, 3, ROWS, "top");
    expect_spread(lefts, 7, ROWS, "left");
    expect_spread(flips, 2, ROWS, "flip");
    assert_in_range(same, 1, ROWS / 20); /* 1 of 42 */
    free(pixels);
    free(out.data);
    free(next.data);
}

static void another_seed_draws_otherwise(void **state) {
    (void)state;
    gd_tensor rows = test_random(TEST_SHAPE(20, 9, 10), 1);
    gd_transform other = augmenting;
    other.seed++;
    gd_tensor a = run(&augmenting, &rows, NULL, 20, 0, true), b = run(&other, &rows, NULL, 20, 0, true);
    assert_memory_not_equal(a.data, b.data, 20 * 64 * sizeof(float));
    free(rows.data);
    free(a.data);
    free(b.data);
}

static void what_does_not_fit_is_refused(void **state) {
    (void)state;
    static const double numbers[] = {1, 2, 0, -1, 1e300};
    static const struct {
        gd_transform t;
        gd_shape sample;
        int code;
        const char *field, *message;
    } rows[] = {
        {{.resize = {4, 0}}, {2, {5, 5}}, GD_E_VALUE, "resize", "resize must be 1 to 65535 pixels, not 0"},
        {{.resize = {-1, 4}}, {2, {5, 5}}, GD_E_VALUE, "resize", "not -1"},
        {{.resize = {4, 65536}}, {2, {5, 5}}, GD_E_VALUE, "resize", "not 65536"},
        {{.pad = -1}, {2, {5, 5}}, GD_E_VALUE, "pad", "pad must be 0 to 65535 pixels, not -1"},
        {{.pad = 1, .resize = {4, 4}}, {2, {5, 5}}, GD_E_VALUE, "pad", "give resize or pad, not both"},
        {{.pad = 1}, {1, {5}}, GD_E_SHAPE, "", "a sample is [5]"},
        {{.flip = 1}, {4, {1, 1, 5, 5}}, GD_E_SHAPE, "", "a sample is [1, 1, 5, 5]"},
        {{.flip = 1}, {2, {0, 5}}, GD_E_SHAPE, "", "a sample is [0, 5]"},
        {{.flip = 1}, {2, {65536, 5}}, GD_E_SHAPE, "", "sides of 1 to 65535"},
        {{.flip = 1.5}, {2, {5, 5}}, GD_E_VALUE, "flip", "flip is a probability, 0 to 1, not 1.5"},
        {{.flip = -0.5}, {2, {5, 5}}, GD_E_VALUE, "flip", "not -0.5"},
        {{.crop = {6, 5}}, {2, {5, 5}}, GD_E_SHAPE, "crop", "crop takes 6 pixels of axis H, which has 5"},
        {{.crop = {6, 8}, .pad = 1}, {2, {5, 5}}, GD_E_SHAPE, "crop", "8 pixels of axis W, which has 7"},
        {{.crop = {3, 0}}, {2, {5, 5}}, GD_E_VALUE, "crop", "crop must be 1 to 65535 pixels, not 0"},
        {{.crop_pad = 2}, {2, {5, 5}}, GD_E_VALUE, "crop_pad", "crop_pad is for crop"},
        {{.crop = {3, 3}, .crop_pad = -2}, {2, {5, 5}}, GD_E_VALUE, "crop_pad", "not -2"},
        {{.shift = -1}, {2, {5, 5}}, GD_E_VALUE, "shift", "not -1"},
        {{.shift = 3, .crop = {5, 3}}, {2, {5, 5}}, GD_E_SHAPE, "shift", "shift by 3 pixels"},
        {{.scale = 1e300}, {1, {5}}, GD_E_VALUE, "scale", "scale must be finite"},
        {{.mean = numbers, .mean_count = 2},
         {3, {3, 5, 5}},
         GD_E_SHAPE,
         "mean",
         "mean has 2 numbers; give one, or one for each of 3 channels"},
        {{.mean = numbers, .mean_count = 2, .pad = 1}, {2, {2, 5}}, GD_E_SHAPE, "mean", "each of 1 channels"},
        {{.mean = numbers, .mean_count = 2}, {0, {0}}, GD_E_SHAPE, "mean", "each of 1 channels"},
        {{.mean = numbers + 4, .mean_count = 1}, {1, {5}}, GD_E_VALUE, "mean", "mean must be finite"},
        {{.std = numbers, .std_count = 3}, {1, {5}}, GD_E_SHAPE, "std", "std has 3 numbers"},
        {{.std = numbers + 2, .std_count = 1}, {1, {5}}, GD_E_VALUE, "std", "std must be above 0, not 0"},
        {{.std = numbers + 1, .std_count = 3}, {1, {3}}, GD_E_VALUE, "std", "std must be above 0, not 0"},
        {{.resize = {65535, 65535}}, {3, {INT64_MAX / 8, 1, 1}}, GD_E_LIMIT, "", "larger than any memory"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        gd_error error = GD_ERROR_INIT;
        gd_shape shape = {.rank = -1};
        const int code = gd_transform_shape(&rows[i].t, &rows[i].sample, &shape, &error);
        if (code != rows[i].code || strcmp(error.field, rows[i].field) != 0 ||
            !strstr(error.message, rows[i].message))
            fail_msg("row %zu: %s (%s): %s", i, gd_error_code(code), error.field, error.message);
        assert_int_equal(shape.rank, -1);
    }
}

static int open_golden(void **state) {
    (void)state;
    test_golden_open(&golden, "transform.safetensors");
    return 0;
}

static int close_golden(void **state) {
    (void)state;
    test_golden_close(&golden);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_become_what_pytorch_makes_of_them),
        cmocka_unit_test(a_row_is_the_same_in_any_batch),
        cmocka_unit_test(every_place_and_both_sides_come_up),
        cmocka_unit_test(another_seed_draws_otherwise),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
