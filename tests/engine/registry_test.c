/* registry_test.c -- the tables of kinds are consistent, and every kind has samples. */
#include "tests/support.h"

static const struct family {
    gd_family family;
    const char *key, *samples;
} families[] = {{GD_OPS, "op", "ops"},
                {GD_LOSSES, "loss", "losses"},
                {GD_OPTIMIZERS, "optimizer", "optimizers"},
                {GD_SCHEDULERS, "scheduler", "schedulers"}};

enum { FAMILIES = sizeof families / sizeof families[0] };

static bool names_kind(const gd_kind *kind, const char *name) {
    return (kind->module && strcmp(kind->module, name) == 0) ||
           (kind->function && strcmp(kind->function, name) == 0);
}

/* Is there a row about this kind in a table of any family? */
typedef struct search {
    const gd_kind *kind;
    const char *table, *key;
} search;

static int count_rows(test_family *family, void *context) {
    const search *s = context;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(family->rows, s->table), i, row) {
        const char *name = json_string_value(json_object_get(row, s->key));
        if (name && names_kind(s->kind, name))
            return 1;
    }
    return 0;
}

static void every_kind_has_a_sample_and_a_bad_row(void **state) {
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        const gd_kind *kind;
        for (size_t i = 0; (kind = gd_kind_at(families[f].family, i)); i++) {
            const char *name = kind->module ? kind->module : kind->function;
            search good = {kind, families[f].samples, families[f].key}, bad = {kind, "bad", families[f].key};
            if (!test_each_family(count_rows, &good))
                fail_msg("%s has no row in any \"%s\" of tests/golden/samples", name, families[f].samples);
            if (!test_each_family(count_rows, &bad))
                fail_msg("%s has no row in any \"bad\" of tests/golden/samples", name);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_has_a_sample_and_a_bad_row),
        cmocka_unit_test(every_kind_documents_itself),
        cmocka_unit_test(both_names_find_the_kind_and_no_other),
        cmocka_unit_test(attribute_rows_are_consistent),
        cmocka_unit_test(an_unknown_name_is_answered_with_a_near_one),
        cmocka_unit_test(every_error_code_has_its_own_string_and_title),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
