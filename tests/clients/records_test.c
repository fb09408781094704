/* records_test.c -- replies read straight off their text, against the same replies read by jansson. */
#include "tests/support.h"

#include <math.h>

#include "clients/c/client.h"
#include "tests/daemon.h"

/* A field of each type, there or not. */
typedef struct record {
    int64_t step, parse;
    double loss, lr;
    bool training;
    char name[8];
    char *repr;
} record;

static const gradd_field fields[] = {
    GRADD_FIELD(record, step, INT, .required = true),
    GRADD_FIELD(record, parse, INT, .path = "timing_us.parse"),
    GRADD_FIELD(record, loss, DOUBLE),
    GRADD_FIELD(record, lr, DOUBLE, .path = "a.b.lr"),
    GRADD_FIELD(record, training, BOOL),
    GRADD_FIELD(record, name, TEXT),
    GRADD_FIELD(record, repr, STRING),
};

static bool is_plain(const char *text, size_t size) {
    gradd_members members;
    /* where it ends the memory does, so that the sanitizer sees a byte too far */
    char *data = malloc(size + 1);
    memcpy(data, text, size);
    data[size] = '\0';
    const bool plain = gradd_members_read(&(gradd_reply){.data = data, .size = size}, &members);
    free(data);
    return plain;
}

/* -0 and 0 differ, NaN is itself. */
static uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Both ways give the same record, or the same error. */
static void check(const char *text, size_t size) {
    record a = {0}, b = {0};
    gradd_error wrong_a = {0}, wrong_b = {0};
    char *data = malloc(size + 1);
    memcpy(data, text, size);
    data[size] = '\0';
    const gradd_reply reply = {.data = data, .size = size};
    const int code_a = gradd_reply_record(&reply, fields, COUNT(fields), &a, &wrong_a);
    json_t *json = NULL;
    int code_b = gradd_reply_json(&reply, &json, &wrong_b);
    if (!code_b) {
        code_b = gradd_record_read(json, fields, COUNT(fields), &b, &wrong_b);
    }
    json_decref(json);
    if (code_a != code_b || strcmp(wrong_a.message, wrong_b.message) != 0 || a.step != b.step ||
        a.parse != b.parse || bits_of(a.loss) != bits_of(b.loss) || bits_of(a.lr) != bits_of(b.lr) ||
        a.training != b.training || strcmp(a.name, b.name) != 0 ||
        strcmp(a.repr ? a.repr : "-", b.repr ? b.repr : "-") != 0) {
        fail_msg("%.*s: %d %s, by jansson %d %s", (int)size, text, code_a, wrong_a.message, code_b,
                 wrong_b.message);
    }
    free(a.repr);
    free(b.repr);
    free(data);
}

/* Texts, and whether they are read without jansson. */
static const struct {
    const char *text;
    bool plain;
} replies[] = {
    {"{\"step\":2,\"loss\":2.29186916,\"timing_us\":{\"parse\":32,\"queue\":59}}", true},
    {" { \"step\" : 1 ,\n\t\"loss\" : -1e-05 , \"timing_us\" : { \"parse\" : 7 } } \r\n", true},
    {"{\"step\":0,\"loss\":\"NaN\",\"a\":{\"b\":{\"lr\":0.1}}}", true},
    {"{\"step\":-0,\"loss\":\"Infinity\",\"a\":{\"b\":{\"lr\":\"-Infinity\"}}}", true},
    {"{\"step\":3,\"loss\":null,\"name\":null,\"repr\":null,\"training\":null}", true},
    {"{\"step\":3,\"loss\":7,\"name\":\"longer than fits\",\"repr\":\"x\",\"training\":true}", true},
    {"{\"step\":3,\"name\":\"\",\"repr\":\"\",\"training\":false,\"more\":true,\"\":{}}", true},
    /* the last of two counts, with what is in it */
    {"{\"step\":1,\"step\":2,\"timing_us\":{\"parse\":1,\"parse\":2}}", true},
    {"{\"step\":1,\"timing_us\":{\"parse\":1},\"timing_us\":{}}", true},
    {"{\"step\":1,\"timing_us\":{\"parse\":1},\"timing_us\":4}", true},
    {"{\"step\":1,\"timing_us\":null,\"a\":{\"b\":{\"lr\":1},\"b\":{\"lr\":2}}}", true},
    {"{\"step\":1,\"parse\":4,\"lr\":5,\"b\":{\"lr\":6},\"timing_us.parse\":8}", true},
    /* left out, or of another type */
    {"{}", true},
    {"{\"step\":null}", true},
    {"{\"step\":\"1\"}", true},
    {"{\"step\":1.0}", true},
    {"{\"step\":1e3}", true},
    {"{\"step\":1,\"loss\":true}", true},
    {"{\"step\":1,\"loss\":\"nan\"}", true},
    {"{\"step\":1,\"loss\":\"NaN2\"}", true},
    {"{\"step\":1,\"loss\":{}}", true},
    {"{\"step\":1,\"training\":1}", true},
    {"{\"step\":1,\"name\":1}", true},
    {"{\"step\":1,\"repr\":false}", true},
    /* numbers: few digits, many, at the edge of what is exact */
    {"{\"step\":999999999999999999,\"loss\":0.1,\"a\":{\"b\":{\"lr\":1e22}}}", true},
    {"{\"step\":-999999999999999999,\"loss\":-0.0,\"a\":{\"b\":{\"lr\":1E+22}}}", true},
    {"{\"step\":1,\"loss\":0.10000000000000001,\"a\":{\"b\":{\"lr\":999999999999999e22}}}", true},
    {"{\"step\":1,\"loss\":2.2250738585072014e-308,\"a\":{\"b\":{\"lr\":1e23}}}", true},
    {"{\"step\":1,\"loss\":4.9406564584124654e-324,\"a\":{\"b\":{\"lr\":1e-400}}}", true},
    {"{\"step\":1,\"loss\":9007199254740993.0,\"a\":{\"b\":{\"lr\":1e-23}}}", true},
    {"{\"step\":1,\"loss\":0.000000000000000000000123456789012345e9,\"a\":{\"b\":{\"lr\":3e0}}}", true},
    {"{\"step\":1,\"loss\":123456789012345e-22,\"a\":{\"b\":{\"lr\":123456789012345e22}}}", true},
    {"{\"step\":1,\"loss\":1.7976931348623157e308}", true},
    {"{\"step\":1,\"loss\":1e309}", false},
    {"{\"step\":1,\"loss\":1e0005}", false},
    {"{\"step\":1000000000000000000}", false},
    {"{\"step\":9223372036854775807}", false},
    {"{\"step\":9223372036854775808}", false},
    /* no numbers, no words, no JSON */
    {"{\"step\":01}", false},
    {"{\"step\":-}", false},
    {"{\"step\":-01}", false},
    {"{\"step\":1.}", false},
    {"{\"step\":.5}", false},
    {"{\"step\":1.e5}", false},
    {"{\"step\":1e}", false},
    {"{\"step\":1e+}", false},
    {"{\"step\":+1}", false},
    {"{\"step\":0x10}", false},
    {"{\"step\":1 2}", false},
    {"{\"step\":inf}", false},
    {"{\"step\":truex}", false},
    {"{\"step\":nul}", false},
    {"{\"step\":1,}", false},
    {"{,\"step\":1}", false},
    {"{\"step\":1", false},
    {"{\"step\"}", false},
    {"{\"step\":}", false},
    {"{step:1}", false},
    {"{\"step\":1}}", false},
    {"{\"step\":1} x", false},
    {"{\"step\":1,\"name\":\"a\nb\"}", false},
    {"{\"step\":1,\"name\":\"a\t\"}", false},
    {"{\"step\":1,\"name\":\"a\n\"}", false},
    {"{\"step\":1,\"name\":\"\xff\"}", false},
    {"", false},
    {"null", false},
    {"3", false},
    {"\"step\"", false},
    /* JSON that jansson reads */
    {"[]", false},
    {"[{\"step\":1}]", false},
    {"{\"step\":1,\"list\":[1,2]}", false},
    {"{\"step\":1,\"name\":\"\\u0061\\n\"}", false},
    {"{\"st\\u0065p\":1}", false},
    {"{\"step\":1,\"name\":\"a\\u0000b\"}", false},
    {"{\"step\":1,\"name\":\"\xc3\xa9\"}", false},
    {"{\"step\":1,\"\x7f\":2}", false},
};

static void a_reply_is_read_as_jansson_reads_it(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(replies); i++) {
        const char *text = replies[i].text;
        check(text, strlen(text));
        if (is_plain(text, strlen(text)) != replies[i].plain) {
            fail_msg("%s is read %s", text, replies[i].plain ? "by jansson" : "without it");
        }
    }
    check("{\"step\":1}\0", 11);
    check("{\"step\":1,\"name\":\"a\0b\"}", 23);
}

/* Each of them cut off at every byte, and with every byte replaced by some that mean something. */
static void damaged_replies_are_read_as_jansson_reads_them(void **state) {
    (void)state;
    static const char meaningful[] = "{}[]\":,\\ \n-+.eE019ntf/\x80\xc3\0";
    char text[256];
    for (size_t i = 0; i < COUNT(replies); i++) {
        const size_t size = strlen(replies[i].text);
        for (size_t at = 0; at < size; at++) {
            check(replies[i].text, at);
            memcpy(text, replies[i].text, size);
            for (size_t j = 0; j < sizeof meaningful; j++) {
                text[at] = meaningful[j];
                check(text, size);
            }
        }
    }
}

/* Doubles of all sizes, written with 1 to 17 digits. */
static void numbers_are_read_to_the_last_bit(void **state) {
    (void)state;
    char text[128];
    uint64_t random = 1;
    for (int i = 0; i < 200000; i++) {
        double value;
        random = random * 6364136223846793005U + 1442695040888963407U;
        const uint64_t bits = random ^ random >> 29;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value)) {
            continue;
        }
        if (i % 2) { /* half of them of the sizes that are met with */
            value = ldexp((double)bits, -(int)(random >> 32) % 80);
        }
        const int size = snprintf(text, sizeof text, "{\"step\":1,\"loss\":%.*g,\"a\":{\"b\":{\"lr\":%.*e}}}",
                                  1 + i % 17, value, i % 17, -value);
        check(text, (size_t)size);
    }
}

static void a_reply_with_many_members_or_levels_is_read(void **state) {
    (void)state;
    char text[4096];
    for (int count = GRADD_MAX_MEMBERS - 2; count <= 2 * GRADD_MAX_MEMBERS; count++) {
        size_t size = 0;
        for (int i = 0; i < count - 1; i++) {
            size += (size_t)snprintf(text + size, sizeof text - size, "%c\"m%d\":%d", i ? ',' : '{', i, i);
        }
        size += (size_t)snprintf(text + size, sizeof text - size, ",\"step\":5}");
        check(text, size);
        assert_int_equal(is_plain(text, size), count <= GRADD_MAX_MEMBERS);
        size = 0;
        for (int i = 0; i < count - 1; i++) {
            size += (size_t)snprintf(text + size, sizeof text - size, "{\"a\":");
        }
        size += (size_t)snprintf(text + size, sizeof text - size, "{\"step\":1");
        for (int i = 0; i < count; i++) {
            text[size++] = '}';
        }
        check(text, size);
    }
}

/* What the daemon answers is what is read without a tree. */
static void a_step_of_the_daemon_needs_no_tree(void **state) {
    (void)state;
    static const char model[] =
        "{\"name\": \"m\", \"seed\": 0, \"input\": {\"shape\": [3]},"
        " \"layers\": [{\"type\": \"Linear\", \"name\": \"fc\", \"out_features\": 2}],"
        " \"loss\": {\"type\": \"CrossEntropyLoss\"},"
        " \"optimizer\": {\"type\": \"SGD\", \"lr\": 0.30000000000000004}}";
    static float pixels[6] = {1, 2, 3, -1, 0, 1};
    static int64_t classes[2] = {0, 1};
    const gradd_named_tensor tensors[] = {
        {"input", {.dtype = GRADD_FLOAT32, .rank = 2, .shape = {2, 3}, .data = pixels}},
        {"target", {.dtype = GRADD_INT64, .rank = 1, .shape = {2}, .data = classes}}};
    static const char *const actions[] = {"train_step", "forward_backward", "evaluate"};
    test_daemon daemon;
    gradd_client *client;
    gradd_error error;
    test_daemon_start(&daemon, NULL);
    const gradd_config config = {.server = daemon.server};
    assert_int_equal(gradd_client_new(&config, &client, NULL), GRADD_OK);
    assert_int_equal(gradd_model_create(client, model, NULL, &error), GRADD_OK);
    for (size_t i = 0; i < COUNT(actions); i++) {
        char *json;
        assert_int_equal(gradd_model_post(client, "m", actions[i], tensors, 2, NULL, &json, &error),
                         GRADD_OK);
        if (!is_plain(json, strlen(json))) {
            fail_msg("%s", json);
        }
        gradd_free(json);
    }
    gradd_client_free(client);
    test_daemon_stop(&daemon);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reply_is_read_as_jansson_reads_it),
        cmocka_unit_test(damaged_replies_are_read_as_jansson_reads_them),
        cmocka_unit_test(numbers_are_read_to_the_last_bit),
        cmocka_unit_test(a_reply_with_many_members_or_levels_is_read),
        cmocka_unit_test(a_step_of_the_daemon_needs_no_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
