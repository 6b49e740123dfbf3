#include "json.h"

#include <jansson.h>
#include <stdint.h>
#include <string.h>

_Static_assert(JSON_DEPTH <= JSON_PARSER_MAX_DEPTH, "what is written must be readable");

#define PER_BYTE 4     /* a string, and the buffer it was collected in while that grew */
#define PER_OBJECT 256 /* the most that one byte of text can cost */

size_t json_tree_bound(const char *text, size_t length)
{
    size_t bound = 1024 + length * PER_BYTE;
    for (const char *end = text + length; text < end; text++) {
        switch (*text) {
        case '{': bound += PER_OBJECT; break;
        case '[':
        case ':': bound += 160; break; /* an array; an entry of an object */
        case ',': bound += 64; break;  /* a slot and a scalar */
        case '"': bound += 48; break;  /* half a string */
        default: break;
        }
    }
    return bound;
}

/* jansson passes over a NUL byte behind a number or a word. */
static void refuse_nul(const char *text, const char *nul, struct err *err)
{
    unsigned long line = 1, column = 1;
    for (; text < nul; text++) {
        if (*text == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)*text & 0xC0) != 0x80) {
            column++;
        }
    }
    err_set(err, "JSON", "line %lu, column %lu: NUL byte", line, column);
}

static void describe(json_error_t *error, struct err *err)
{
    enum json_error_code code = json_error_code(error);
    /* The column of the last character that was read; in these cases it was a good one. */
    if (code == json_error_invalid_utf8 || code == json_error_premature_end_of_input)
        error->column++;
    /* Documents hold what must not be in a log, and messages get there. */
    char *quote = strstr(error->text, " near '");
    if (quote != NULL)
        *quote = '\0';
    err_set(err, "JSON", "line %d, column %d: %s", error->line, error->column, error->text);
}

struct json_t *json_read(const char *text, size_t length, struct err *err)
{
    if (length > JSON_TREE_MAX / (PER_OBJECT + PER_BYTE + 1) &&
        json_tree_bound(text, length) > JSON_TREE_MAX) {
        err_set(err, "JSON", "text too large: reading it could take more than %lu MiB",
                JSON_TREE_MAX >> 20);
        return NULL;
    }
    const char *nul = memchr(text, '\0', length);
    if (nul != NULL) {
        refuse_nul(text, nul, err);
        return NULL;
    }
    json_error_t error;
    json_t *root = json_loadb(text, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (root == NULL && error.text[0] == '\0')
        err_set(err, "JSON", "out of memory");
    else if (root == NULL)
        describe(&error, err);
    return root;
}

void json_free(struct json_t *root)
{
    json_decref(root);
}

void json_view(const struct json_t *value, struct json_view *view)
{
    memset(view, 0, sizeof(*view));
    switch (json_typeof(value)) {
    case JSON_NULL: view->kind = KIND_NULL; break;
    case JSON_FALSE: view->kind = KIND_FALSE; break;
    case JSON_TRUE: view->kind = KIND_TRUE; break;
    case JSON_INTEGER:
        view->kind = KIND_INTEGER;
        view->integer = json_integer_value(value);
        break;
    case JSON_REAL:
        view->kind = KIND_REAL;
        view->real = json_real_value(value);
        break;
    case JSON_STRING:
        view->kind = KIND_STRING;
        view->string = json_string_value(value);
        view->length = json_string_length(value);
        break;
    case JSON_ARRAY:
        view->kind = KIND_ARRAY;
        view->length = json_array_size(value);
        break;
    case JSON_OBJECT:
        view->kind = KIND_OBJECT;
        view->length = json_object_size(value);
        break;
    }
}

const struct json_t *json_item(const struct json_t *array, size_t i)
{
    return json_array_get(array, i);
}

bool json_next(const struct json_t *object, struct json_member *member)
{
    json_t *changeable = (json_t *)object; /* as jansson wants it, though it changes nothing */
    member->at = member->at == NULL ? json_object_iter(changeable)
                                    : json_object_iter_next(changeable, member->at);
    if (member->at == NULL)
        return false;
    member->name = json_object_iter_key(member->at);
    member->length = json_object_iter_key_len(member->at);
    member->value = json_object_iter_value(member->at);
    return true;
}

size_t json_write_string(char *out, size_t room, const char *s, size_t length)
{
    json_t *string = json_stringn(s, length); /* NULL when it is not valid UTF-8 */
    size_t size = json_dumpb(string, out, room, JSON_ENCODE_ANY);
    json_decref(string);
    return size;
}

static bool reads_back(const char *text, size_t length, double value)
{
    json_t *real = json_loadb(text, length, JSON_DECODE_ANY, NULL);
    bool same = json_real_value(real) == value;
    json_decref(real);
    return same;
}

size_t json_write_real(char *out, double value)
{
    json_t *real = json_real(value);
    size_t length = 0;
    for (size_t digits = 15; digits <= 17; digits++) {
        length = json_dumpb(real, out, JSON_NUMBER, JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));
        if (reads_back(out, length, value))
            break;
    }
    json_decref(real);
    return length;
}

size_t json_utf8(const char *s, const char *end)
{
    unsigned char lead = (unsigned char)*s;
    if (lead < 0x80)
        return 1;
    size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if ((size_t)(end - s) < length)
        return 0;
    json_t *character = json_stringn(s, length);
    json_decref(character);
    return character != NULL ? length : 0;
}
