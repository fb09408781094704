/* names.h -- names that clients choose, and names they meant. */
#ifndef GP_NAMES_H
#define GP_NAMES_H

#include <stdbool.h>
#include <stddef.h>

/** A layer's or an input's name: words of letters, digits and '_', joined by '.', at most 63 bytes. */
bool gp_layer_name_ok(const char *name);
/** A name that a tensor has in requests and replies beside others, an output's or a target's: the same rule,
 * but none that a tensor's own form in JSON or safetensors gives a meaning to. */
bool gp_tensor_name_ok(const char *name);
/** Is this key one of a tensor's JSON form: "data", "shape" ...? */
bool gp_tensor_key(const char *key);
/** A class name for repr: letters, digits and '_', not a digit first, at most 63 bytes. */
bool gp_identifier_ok(const char *name);
/** The one of `names` that `given` is a slip of, or NULL. */
const char *gp_nearest(const char *given, const char *const *names, size_t count);

#endif
