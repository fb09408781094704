/* attrs.c -- attribute tables: defaults, checks, and reading back. */
#include <inttypes.h>

#include "engine/graph/op.h"

/* The place of a row's field in an attribute struct, by type. */
#define FIELD(type, attrs, row) ((type *)((char *)(attrs) + (row)->offset))
#define CONST_FIELD(type, attrs, row) ((const type *)((const char *)(attrs) + (row)->offset))

/* One parse: what every check needs to say where it stands. */
typedef struct parse {
    const gd_attr *row;
    const gd_value *value;
    const char *what;
    gd_arena *arena;
    void *attrs;
    gd_error *error;
} parse;

static const char *value_text(const gd_value *value, char *text, size_t size) {
    switch (value->kind) {
    case GD_VALUE_NULL:
        snprintf(text, size, "null");
        break;
    case GD_VALUE_BOOL:
        snprintf(text, size, "%s", value->boolean ? "true" : "false");
        break;
    case GD_VALUE_INT:
        snprintf(text, size, "%" PRId64, value->integer);
        break;
    case GD_VALUE_FLOAT:
        snprintf(text, size, "%.6g", value->number);
        break;
    case GD_VALUE_STRING:
        snprintf(text, size, "'%.40s'", value->string);
        break;
    case GD_VALUE_INTS:
    case GD_VALUE_FLOATS:
        snprintf(text, size, "a list of %zu", value->count);
        break;
    }
    return text;
}

static int wrong_type(const parse *p, const char *wanted) {
    char text[64];
    return gd_fail_field(p->error, GD_E_ATTRIBUTE, p->row->name, "%s: %s must be %s, not %s", p->what,
                         p->row->name, wanted, value_text(p->value, text, sizeof text));
}

static int check_range(const parse *p, double number) {
    const gd_attr *row = p->row;
    if (number >= row->min && number <= row->max)
        return 0;
    if (isnan(number) || (isinf(row->min) && isinf(row->max)))
        return gd_fail_field(p->error, GD_E_ATTRIBUTE, row->name, "%s: %s must be a number", p->what,
                             row->name);
    if (number < row->min)
        return gd_fail_field(p->error, GD_E_ATTRIBUTE, row->name, "%s: %s must be at least %.10g, not %.10g",
                             p->what, row->name, row->min, number);
    return gd_fail_field(p->error, GD_E_ATTRIBUTE, row->name, "%s: %s must be at most %.10g, not %.10g",
                         p->what, row->name, row->max, number);
}

static int check_int(const parse *p, int64_t number) {
    if (number == GD_NONE)
        return p->row->nullable ? 0 : wrong_type(p, "integers, none of them null");
    return check_range(p, (double)number);
}

static int parse_bool(const parse *p) {
    if (p->value->kind != GD_VALUE_BOOL)
        return wrong_type(p, "true or false");
    *FIELD(bool, p->attrs, p->row) = p->value->boolean;
    return 0;
}

static int parse_int(const parse *p) {
    if (p->value->kind != GD_VALUE_INT)
        return wrong_type(p, "an integer");
    int code = check_int(p, p->value->integer);
    if (!code)
        *FIELD(int64_t, p->attrs, p->row) = p->value->integer;
    return code;
}

static int parse_float(const parse *p) {
    if (p->value->kind != GD_VALUE_INT && p->value->kind != GD_VALUE_FLOAT)
        return wrong_type(p, "a number");
    double number = p->value->kind == GD_VALUE_INT ? (double)p->value->integer : p->value->number;
    int code = check_range(p, number);
    if (!code)
        *FIELD(double, p->attrs, p->row) = number;
    return code;
}

/* Index of the word given; -1: it is none of the choices, which are appended to `wanted`. */
static int find_choice(const parse *p, const char *before, char *wanted, size_t size) {
    size_t used = strlen(wanted);
    for (int i = 0; p->row->choices[i]; i++) {
        if (p->value->kind == GD_VALUE_STRING && strcmp(p->value->string, p->row->choices[i]) == 0)
            return i;
        if (used < size)
            used +=
                (size_t)snprintf(wanted + used, size - used, "%s'%s'", i ? ", " : before, p->row->choices[i]);
    }
    return -1;
}

static int parse_choice(const parse *p) {
    char wanted[160] = "";
    const int choice = find_choice(p, "one of ", wanted, sizeof wanted);
    if (choice < 0)
        return wrong_type(p, wanted);
    *FIELD(int, p->attrs, p->row) = choice;
    return 0;
}

static int parse_intn(const parse *p) {
    int64_t *field = FIELD(int64_t, p->attrs, p->row);
    const gd_value *value = p->value;
    char wanted[160];
    snprintf(wanted, sizeof wanted, "an integer or a list of %d", p->row->length);
    const int word = p->row->choices ? find_choice(p, " or one of ", wanted, sizeof wanted) : -1;
    for (int i = 0; word >= 0 && i < p->row->length; i++)
        field[i] = -1 - word;
    if (word >= 0)
        return 0;
    if (value->kind != GD_VALUE_INT &&
        !(value->kind == GD_VALUE_INTS && value->count == (size_t)p->row->length))
        return wrong_type(p, wanted);
    for (int i = 0; i < p->row->length; i++) {
        int64_t number = value->kind == GD_VALUE_INT ? value->integer : value->ints[i];
        int code = check_int(p, number);
        if (code)
            return code;
        field[i] = number;
    }
    return 0;
}

static int parse_ints(const parse *p) {
    const bool single = p->value->kind == GD_VALUE_INT;
    if (!single && p->value->kind != GD_VALUE_INTS)
        return wrong_type(p, "a list of integers");
    const int64_t *given = single ? &p->value->integer : p->value->ints;
    const size_t count = single ? 1 : p->value->count;
    for (size_t i = 0; i < count; i++) {
        int code = check_int(p, given[i]);
        if (code)
            return code;
    }
    gd_ints copy = {.data = GD_ARENA_NEW(p->arena, int64_t, count), .count = count};
    if (!copy.data)
        return gd_fail(p->error, GD_E_MEMORY, "no memory for %s", p->row->name);
    if (count)
        memcpy(copy.data, given, count * sizeof *copy.data);
    *FIELD(gd_ints, p->attrs, p->row) = copy;
    return 0;
}

static int parse_floats(const parse *p) {
    const gd_value *value = p->value;
    const bool single = value->kind == GD_VALUE_INT || value->kind == GD_VALUE_FLOAT;
    if (!single && value->kind != GD_VALUE_INTS && value->kind != GD_VALUE_FLOATS)
        return wrong_type(p, "a list of numbers");
    const size_t count = single ? 1 : value->count;
    gd_floats copy = {.data = GD_ARENA_NEW(p->arena, double, count), .count = count};
    if (!copy.data)
        return gd_fail(p->error, GD_E_MEMORY, "no memory for %s", p->row->name);
    for (size_t i = 0; i < copy.count; i++) {
        copy.data[i] = value->kind == GD_VALUE_INT     ? (double)value->integer
                       : value->kind == GD_VALUE_FLOAT ? value->number
                       : value->kind == GD_VALUE_INTS  ? (double)value->ints[i]
                                                       : value->floats[i];
        int code = check_range(p, copy.data[i]);
        if (code)
            return code;
    }
    *FIELD(gd_floats, p->attrs, p->row) = copy;
    return 0;
}

static int parse_floatn(const parse *p) {
    const gd_value *value = p->value;
    char wanted[64];
    snprintf(wanted, sizeof wanted, "a list of %d numbers", p->row->length);
    if ((value->kind != GD_VALUE_INTS && value->kind != GD_VALUE_FLOATS) ||
        value->count != (size_t)p->row->length)
        return wrong_type(p, wanted);
    for (int i = 0; i < p->row->length; i++) {
        const double number = value->kind == GD_VALUE_INTS ? (double)value->ints[i] : value->floats[i];
        int code = check_range(p, number);
        if (code)
            return code;
        FIELD(double, p->attrs, p->row)[i] = number;
    }
    return 0;
}

static int (*const parsers[])(const parse *p) = {
    [GD_ATTR_BOOL] = parse_bool,     [GD_ATTR_INT] = parse_int,       [GD_ATTR_FLOAT] = parse_float,
    [GD_ATTR_CHOICE] = parse_choice, [GD_ATTR_INTN] = parse_intn,     [GD_ATTR_INTS] = parse_ints,
    [GD_ATTR_FLOATN] = parse_floatn, [GD_ATTR_FLOATS] = parse_floats,
};

static const gd_attr *find_row(const gd_kind *kind, const char *name) {
    for (size_t i = 0; i < kind->attr_count; i++)
        if (strcmp(kind->attrs[i].name, name) == 0)
            return &kind->attrs[i];
    return NULL;
}

static size_t field_size(const gd_attr *row) {
    static const size_t sizes[] = {
        [GD_ATTR_BOOL] = sizeof(bool),     [GD_ATTR_INT] = sizeof(int64_t),
        [GD_ATTR_FLOAT] = sizeof(double),  [GD_ATTR_CHOICE] = sizeof(int),
        [GD_ATTR_INTN] = sizeof(int64_t),  [GD_ATTR_INTS] = sizeof(gd_ints),
        [GD_ATTR_FLOATN] = sizeof(double), [GD_ATTR_FLOATS] = sizeof(gd_floats),
    };
    return sizes[row->type] * (size_t)(row->length ? row->length : 1);
}

static int64_t default_int(const gd_attr *row) {
    return isnan(row->number) ? GD_NONE : (int64_t)row->number;
}

/* Write null, where that is a value. */
static void set_null(const gd_attr *row, void *attrs) {
    if (row->type == GD_ATTR_FLOAT)
        *FIELD(double, attrs, row) = NAN;
    else if (row->type == GD_ATTR_CHOICE)
        *FIELD(int, attrs, row) = -1;
    else
        for (int i = 0; i < (row->type == GD_ATTR_INTN ? row->length : 1); i++)
            FIELD(int64_t, attrs, row)[i] = GD_NONE;
}

/* Write a row's default; rows it is taken from stand before it and are filled in already. */
static void set_default(const gd_kind *kind, const gd_attr *row, void *attrs) {
    if (row->default_from) {
        const gd_attr *from = find_row(kind, row->default_from);
        memcpy(FIELD(char, attrs, row), CONST_FIELD(char, attrs, from), field_size(row));
        return;
    }
    switch (row->type) {
    case GD_ATTR_BOOL:
        *FIELD(bool, attrs, row) = row->number != 0;
        break;
    case GD_ATTR_INT:
        *FIELD(int64_t, attrs, row) = default_int(row);
        break;
    case GD_ATTR_FLOAT:
        *FIELD(double, attrs, row) = row->number;
        break;
    case GD_ATTR_CHOICE:
        *FIELD(int, attrs, row) = isnan(row->number) ? -1 : (int)row->number;
        break;
    case GD_ATTR_INTN:
        for (int i = 0; i < row->length; i++)
            FIELD(int64_t, attrs, row)[i] = default_int(row);
        break;
    case GD_ATTR_INTS:
        *FIELD(gd_ints, attrs, row) =
            (gd_ints){.data = (int64_t *)(uintptr_t)row->ints, .count = row->ints_count};
        break;
    case GD_ATTR_FLOATN:
        for (int i = 0; i < row->length; i++)
            FIELD(double, attrs, row)[i] = row->floats[i];
        break;
    case GD_ATTR_FLOATS:
        *FIELD(gd_floats, attrs, row) = (gd_floats){0};
        break;
    }
}

static int unknown_attribute(const gd_kind *kind, const char *name, const char *what, gd_error *error) {
    enum { MOST = 32 };
    const char *names[MOST] = {0};
    size_t count = kind->attr_count < MOST ? kind->attr_count : MOST;
    for (size_t i = 0; i < count; i++)
        names[i] = kind->attrs[i].name;
    const char *near = gd_nearest(name, names, count);
    if (near)
        return gd_fail_field(error, GD_E_ATTRIBUTE, name, "%s has no attribute '%.40s'; did you mean '%s'?",
                             what, name, near);
    char list[256] = "none";
    size_t used = 0;
    for (size_t i = 0; i < count && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    return gd_fail_field(error, GD_E_ATTRIBUTE, name, "%s has no attribute '%.40s'; its attributes: %s", what,
                         name, list);
}

static const gd_field *given(const gd_attr *row, const gd_field *fields, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(fields[i].name, row->name) == 0 &&
            (row->nullable || fields[i].value.kind != GD_VALUE_NULL))
            return &fields[i];
    return NULL;
}

static int parse_fields(const gd_kind *kind, const gd_field *fields, size_t field_count, const char *what,
                        gd_arena *arena, void *attrs, bool fresh, gd_error *error) {
    for (size_t i = 0; i < field_count; i++)
        if (!find_row(kind, fields[i].name))
            return unknown_attribute(kind, fields[i].name, what, error);
    for (size_t i = 0; i < kind->attr_count; i++) {
        const gd_attr *row = &kind->attrs[i];
        const gd_field *field = given(row, fields, field_count);
        if (field && field->value.kind == GD_VALUE_NULL) {
            set_null(row, attrs);
        } else if (field) {
            parse p = {row, &field->value, what, arena, attrs, error};
            int code = parsers[row->type](&p);
            if (code)
                return code;
        } else if (fresh && row->required) {
            return gd_fail_field(error, GD_E_ATTRIBUTE, row->name, "%s needs %s (%s)", what, row->name,
                                 row->doc);
        } else if (fresh) {
            set_default(kind, row, attrs);
        }
    }
    return 0;
}

int gd_attrs_parse(const gd_kind *kind, const gd_field *fields, size_t field_count, const char *what,
                   gd_arena *arena, void *attrs, gd_error *error) {
    return parse_fields(kind, fields, field_count, what, arena, attrs, true, error);
}

int gd_attrs_update(const gd_kind *kind, const gd_field *fields, size_t field_count, const char *what,
                    void *attrs, gd_error *error) {
    _Alignas(16) char copy[GD_MAX_ATTR_SIZE];
    memcpy(copy, attrs, kind->attr_size);
    int code = parse_fields(kind, fields, field_count, what, NULL, copy, false, error);
    if (!code)
        memcpy(attrs, copy, kind->attr_size);
    return code;
}

uint64_t gd_attrs_given(const gd_kind *kind, const gd_field *fields, size_t field_count) {
    uint64_t rows = 0;
    for (size_t i = 0; i < kind->attr_count; i++)
        if (given(&kind->attrs[i], fields, field_count))
            rows |= UINT64_C(1) << i;
    return rows;
}

void gd_attrs_copy(const gd_kind *kind, uint64_t rows, const void *from, void *to) {
    for (size_t i = 0; i < kind->attr_count; i++)
        if (rows >> i & 1)
            memcpy(FIELD(char, to, &kind->attrs[i]), CONST_FIELD(char, from, &kind->attrs[i]),
                   field_size(&kind->attrs[i]));
}

gd_value gd_attr_read(const gd_attr *row, const void *attrs) {
    switch (row->type) {
    case GD_ATTR_BOOL:
        return (gd_value){.kind = GD_VALUE_BOOL, .boolean = *CONST_FIELD(bool, attrs, row)};
    case GD_ATTR_INT:
        if (*CONST_FIELD(int64_t, attrs, row) == GD_NONE)
            break;
        return (gd_value){.kind = GD_VALUE_INT, .integer = *CONST_FIELD(int64_t, attrs, row)};
    case GD_ATTR_FLOAT:
        if (row->nullable && isnan(*CONST_FIELD(double, attrs, row)))
            break;
        return (gd_value){.kind = GD_VALUE_FLOAT, .number = *CONST_FIELD(double, attrs, row)};
    case GD_ATTR_CHOICE:
        if (*CONST_FIELD(int, attrs, row) < 0)
            break;
        return (gd_value){.kind = GD_VALUE_STRING, .string = row->choices[*CONST_FIELD(int, attrs, row)]};
    case GD_ATTR_INTN: {
        const int64_t *numbers = CONST_FIELD(int64_t, attrs, row);
        const int word = row->choices ? gd_word_of(numbers) : -1;
        if (word >= 0)
            return (gd_value){.kind = GD_VALUE_STRING, .string = row->choices[word]};
        return (gd_value){.kind = GD_VALUE_INTS, .count = (size_t)row->length, .ints = numbers};
    }
    case GD_ATTR_INTS: {
        const gd_ints *list = CONST_FIELD(gd_ints, attrs, row);
        return (gd_value){.kind = GD_VALUE_INTS, .count = list->count, .ints = list->data};
    }
    case GD_ATTR_FLOATN:
        return (gd_value){
            .kind = GD_VALUE_FLOATS, .count = (size_t)row->length, .floats = CONST_FIELD(double, attrs, row)};
    case GD_ATTR_FLOATS: {
        const gd_floats *list = CONST_FIELD(gd_floats, attrs, row);
        if (list->data)
            return (gd_value){.kind = GD_VALUE_FLOATS, .count = list->count, .floats = list->data};
        break;
    }
    }
    return (gd_value){.kind = GD_VALUE_NULL};
}

void gd_repr_float(FILE *out, double value) {
    char text[40];
    int digits = 1;
    if (isnan(value)) {
        fputs("None", out);
        return;
    }
    for (; digits < 17; digits++) { /* as few as tell it from every other */
        snprintf(text, sizeof text, "%.*e", digits - 1, value);
        if (strtod(text, NULL) == value)
            break;
    }
    snprintf(text, sizeof text, "%.*e", digits - 1, value);
    const char *exponent = strchr(text, 'e');
    const int power = exponent ? (int)strtol(exponent + 1, NULL, 10) : 0;
    if (exponent && power >= -4 && power < 16)
        fprintf(out, "%.*f", digits - 1 - power > 1 ? digits - 1 - power : 1, value);
    else
        fputs(text, out);
}
