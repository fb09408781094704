/* registry_test.c -- the tables of kinds are consistent, and every kind has samples. */
#include "tests/support.h"

static const struct family {
    gd_family family;
    const char *key, *samples, *bad;
} families[] = {{GD_OPS, "op", "ops", "bad"},
                {GD_LOSSES, "loss", "losses", "bad"},
                {GD_OPTIMIZERS, "optimizer", "optimizers", "bad"},
                {GD_SCHEDULERS, "scheduler", "schedulers", "bad"},
                {GD_INITIALIZERS, "initializer", "initializers", "bad_initializers"}};

enum { FAMILIES = sizeof families / sizeof families[0] };

static bool names_kind(const gd_kind *kind, const char *name) {
    return (kind->module && strcmp(kind->module, name) == 0) ||
           (kind->function && strcmp(kind->function, name) == 0);
}

/* The rows of every family of tests/golden/samples, a list for each table: "ops", "bad" ... */
static json_t *rows_of_all;

static int gather(test_family *family, void *context) {
    const char *table;
    json_t *rows;
    (void)context;
    json_object_foreach(family->rows, table, rows) {
        json_t *all = json_object_get(rows_of_all, table);
        if (!all)
            json_object_set_new(rows_of_all, table, all = json_array());
        json_array_extend(all, rows);
    }
    return 0;
}

/* The i-th row of a table that is about this kind; NULL: there are no more. */
static const json_t *row_of(const gd_kind *kind, const char *table, const char *key, size_t index) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(rows_of_all, table), i, row) {
        const char *name = json_string_value(json_object_get(row, key));
        if (name && names_kind(kind, name) && index-- == 0)
            return row;
    }
    return NULL;
}

static void every_kind_has_a_sample_and_a_bad_row(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        const gd_kind *kind;
        for (size_t i = 0; (kind = gd_kind_at(families[f].family, i)); i++) {
            const char *name = kind->module ? kind->module : kind->function;
            if (!row_of(kind, families[f].samples, families[f].key, 0))
                fail_msg("%s has no row in any \"%s\" of tests/golden/samples", name, families[f].samples);
            if (!row_of(kind, families[f].bad, families[f].key, 0))
                fail_msg("%s has no row in any \"%s\" of tests/golden/samples", name, families[f].bad);
        }
    }
}

/* Attributes that rows cannot give two values. */
static bool cannot_vary(const gd_attr *attr) {
    return (attr->choices && !attr->choices[1])      /* there is only one */
           || strcmp(attr->name, "batch_first") == 0 /* a row's batch comes first: recurrent_test.c */
           || strcmp(attr->name, "interval") == 0;   /* torch has none: scheduler_test.c */
}

/* An attribute in a row; the default (NULL: none) where it is left out; of a list of equal numbers the one.
 */
static const json_t *value_in(const json_t *row, const char *name, const json_t *by_default) {
    const json_t *given = json_object_get(json_object_get(row, "attributes"), name);
    const json_t *value = given ? given : by_default;
    for (size_t i = 1; i < json_array_size(value); i++)
        if (!json_equal(json_array_get(value, 0), json_array_get(value, i)))
            return value;
    return json_array_size(value) ? json_array_get(value, 0) : value;
}

static bool same_value(const json_t *a, const json_t *b) {
    return json_is_number(a) && json_is_number(b) ? json_number_value(a) == json_number_value(b)
                                                  : (!a && !b) || json_equal(a, b);
}

static bool takes_two_values(const gd_kind *kind, const struct family *family, const json_t *described) {
    const char *name = json_string_value(json_object_get(described, "name"));
    const json_t *by_default = json_object_get(described, "default"), *row;
    const json_t *first = value_in(row_of(kind, family->samples, family->key, 0), name, by_default);
    for (size_t i = 1; (row = row_of(kind, family->samples, family->key, i)); i++)
        if (!same_value(value_in(row, name, by_default), first))
            return true;
    return false;
}

static void every_attribute_takes_two_values_among_the_samples(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        const gd_kind *kind;
        for (size_t i = 0; (kind = gd_kind_at(families[f].family, i)); i++) {
            json_t *described = gp_kind_json(kind), *attrs = json_object_get(described, "attributes");
            assert_int_equal(json_array_size(attrs), kind->attr_count);
            for (size_t a = 0; a < kind->attr_count; a++)
                if (!cannot_vary(&kind->attrs[a]) &&
                    !takes_two_values(kind, &families[f], json_array_get(attrs, a)))
                    fail_msg("%s.%s has the same value in every row of \"%s\"",
                             kind->module ? kind->module : kind->function, kind->attrs[a].name,
                             families[f].samples);
            json_decref(described);
        }
    }
}

static void every_kind_documents_itself(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        const gd_kind *kind;
        for (size_t i = 0; (kind = gd_kind_at(families[f].family, i)); i++) {
            const char *name = kind->module ? kind->module : kind->function;
            assert_non_null(name);
            if (!kind->doc || strchr(kind->doc, '\n') || kind->doc[0] == 0)
                fail_msg("%s needs a doc of one line", name);
            for (size_t a = 0; a < kind->attr_count; a++)
                if (!kind->attrs[a].doc || kind->attrs[a].doc[0] == 0)
                    fail_msg("%s.%s needs a doc", name, kind->attrs[a].name);
            for (size_t p = 0; p < kind->param_count; p++)
                if (!kind->params[p].doc || kind->params[p].doc[0] == 0)
                    fail_msg("%s.%s needs a doc", name, kind->params[p].name);
        }
    }
}

static void both_names_find_the_kind_and_no_other(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        gd_family family = families[f].family;
        const gd_kind *kind, *other;
        for (size_t i = 0; (kind = gd_kind_at(family, i)); i++) {
            if (kind->module)
                assert_ptr_equal(gd_kind_find(family, kind->module, NULL), kind);
            if (kind->function)
                assert_ptr_equal(gd_kind_find(family, kind->function, NULL), kind);
            for (size_t k = 0; (other = gd_kind_at(family, k)); k++)
                if (k != i && ((kind->module && names_kind(other, kind->module)) ||
                               (kind->function && names_kind(other, kind->function))))
                    fail_msg("two kinds are called %s", kind->module ? kind->module : kind->function);
        }
    }
}

static void attribute_rows_are_consistent(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        const gd_kind *kind;
        for (size_t i = 0; (kind = gd_kind_at(families[f].family, i)); i++)
            for (size_t a = 0; a < kind->attr_count; a++) {
                const gd_attr *row = &kind->attrs[a];
                assert_true(row->offset < kind->attr_size);
                assert_false(row->required && row->inferred);
                if (row->type == GD_ATTR_INTN && row->choices)
                    assert_true(row->min >= 0); /* words lie below */
                else
                    assert_true((row->type == GD_ATTR_CHOICE) == (row->choices != NULL));
                assert_true((row->type == GD_ATTR_INTN || row->type == GD_ATTR_FLOATN) == (row->length > 0));
                assert_true((row->type == GD_ATTR_FLOATN) == (row->floats != NULL));
                if (row->type != GD_ATTR_CHOICE)
                    assert_true(row->min <= row->max);
                bool found = !row->default_from;
                for (size_t b = 0; b < a; b++) {
                    assert_string_not_equal(kind->attrs[b].name, row->name);
                    found = found || strcmp(kind->attrs[b].name, row->default_from) == 0;
                }
                if (!found)
                    fail_msg("%s takes its default from %s, which is not an earlier attribute", row->name,
                             row->default_from);
            }
    }
}

static void an_unknown_name_is_answered_with_a_near_one(void **state) {
    (void)state;
    gd_error error = GD_ERROR_INIT;
    assert_null(gd_kind_find(GD_OPS, "Conv2D", &error));
    assert_int_equal(error.code, GD_E_UNKNOWN_KIND);
    assert_non_null(strstr(error.message, "Conv2D"));
    assert_non_null(strstr(error.message, "did you mean 'Conv2d'"));
}

static void every_error_code_has_its_own_string_and_title(void **state) {
    (void)state;
    for (int a = GD_E_FIRST + 1; a < GD_E_END; a++) {
        assert_string_not_equal(gd_error_code(a), "internal");
        assert_true(gd_error_title(a)[0] != 0);
        for (int b = GD_E_FIRST + 1; b < a; b++)
            assert_string_not_equal(gd_error_code(a), gd_error_code(b));
    }
    assert_string_equal(gd_error_code(-5000), "internal");
    assert_string_equal(gd_error_code(GD_E_SHAPE), "shape_mismatch");
}

static int set_up(void **state) {
    (void)state;
    rows_of_all = json_object();
    return test_each_family(gather, NULL);
}

static int tear_down(void **state) {
    (void)state;
    json_decref(rows_of_all);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_has_a_sample_and_a_bad_row),
        cmocka_unit_test(every_attribute_takes_two_values_among_the_samples),
        cmocka_unit_test(every_kind_documents_itself),
        cmocka_unit_test(both_names_find_the_kind_and_no_other),
        cmocka_unit_test(attribute_rows_are_consistent),
        cmocka_unit_test(an_unknown_name_is_answered_with_a_near_one),
        cmocka_unit_test(every_error_code_has_its_own_string_and_title),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
