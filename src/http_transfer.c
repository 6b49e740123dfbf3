#include "http_transfer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FIELDS = 256 * 1024 }; /* bytes of a response's header */

/* ---- curl's callbacks ---- */

static size_t on_body(char *data, size_t unit, size_t count, void *context)
{
    struct http_transfer *transfer = context;
    size_t size = unit * count;
    if (size > transfer->max_response - transfer->body.size) {
        transfer->too_large = true;
        return 0;
    }
    return http_buffer_add(&transfer->body, data, size) < 0 ? 0 : size;
}

static size_t on_header(char *data, size_t unit, size_t count, void *context)
{
    struct http_transfer *transfer = context;
    size_t size = unit * count;
    /* the next response: what came before was 1xx */
    if (size >= 5 && memcmp(data, "HTTP/", 5) == 0) {
        transfer->fields.size = 0;
        transfer->header_ended = false;
        return size;
    }
    if (size > 0 && (data[0] == '\r' || data[0] == '\n')) {
        transfer->header_ended = true;
        return size;
    }
    if (size > MAX_FIELDS - transfer->fields.size) {
        transfer->too_large = true;
        return 0;
    }
    int stored = 0;
    char *colon = memchr(data, ':', size);
    if (size > 0 && (data[0] == ' ' || data[0] == '\t'))
        stored = http_field_continue(&transfer->fields, data, size);
    else if (colon != NULL)
        stored = http_field_add(&transfer->fields, data, (size_t)(colon - data), colon + 1,
                                size - (size_t)(colon - data) - 1);
    return stored < 0 ? 0 : size;
}

static size_t read_body(char *data, size_t unit, size_t count, void *context)
{
    struct http_transfer *transfer = context;
    size_t size = transfer->request_body.size - transfer->request_at;
    if (size > unit * count)
        size = unit * count;
    if (size > 0)
        memcpy(data, transfer->request_body.data + transfer->request_at, size);
    transfer->request_at += size;
    return size;
}

/*
 * curl resends on a new connection when a reused one dies without an answer, whatever the method.
 * For a request that is not idempotent the refusal here turns that into an error: the caller
 * decides, knowing that the first may have been applied.
 */
static int seek_body(void *context, curl_off_t offset, int origin)
{
    struct http_transfer *transfer = context;
    if (!transfer->idempotent || origin != SEEK_SET || offset < 0 ||
        (size_t)offset > transfer->request_body.size)
        return CURL_SEEKFUNC_FAIL;
    transfer->request_at = (size_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* ---- setting it up ---- */

static bool is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
        strcmp(host, "[::1]") == 0;
}

/* Parses the URL: fills the name for messages, tells whether a proxy makes sense. */
static int read_url(struct http_transfer *transfer, const struct http_request *request,
                    bool *loopback, struct err *err)
{
    char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL;
    CURLU *url = curl_url();
    int status = -1;
    CURLUcode code = url == NULL ? CURLUE_OUT_OF_MEMORY
        : curl_url_set(url, CURLUPART_URL, request->url, 0);
    if (code == CURLUE_OK)
        code = curl_url_get(url, CURLUPART_SCHEME, &scheme, 0);
    if (code == CURLUE_OK)
        code = curl_url_get(url, CURLUPART_HOST, &host, 0);
    if (code == CURLUE_OK)
        code = curl_url_get(url, CURLUPART_PATH, &path, 0);
    if (code != CURLUE_OK) { /* the text is not repeated: what is malformed may hold anything */
        err_set(err, "URL", "%s: %s", request->method, curl_url_strerror(code));
        goto done;
    }
    if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) {
        err_set(err, "URL", "%s: only http and https URLs, not %s", request->method, scheme);
        goto done;
    }
    curl_url_get(url, CURLUPART_PORT, &port, 0); /* none is no error */
    snprintf(transfer->name, sizeof(transfer->name), "%s %s://%s%s%s%s", request->method, scheme,
             host, port != NULL ? ":" : "", port != NULL ? port : "", path);
    *loopback = is_loopback(host);
    status = 0;
done:
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(path);
    curl_url_cleanup(url);
    return status;
}

static int add_header(struct http_transfer *transfer, const char *line)
{
    struct curl_slist *longer = curl_slist_append(transfer->headers, line);
    if (longer == NULL)
        return -1;
    transfer->headers = longer;
    return 0;
}

static int set_headers(struct http_transfer *transfer, const struct http_request *request)
{
    const char *at = request->fields;
    const char *end = at != NULL ? at + request->fields_size : NULL;
    struct http_field field;
    struct http_buffer line = {0};
    int status = -1;
    /* none: it costs a round trip, or a second where it is not understood */
    if (add_header(transfer, "Expect:") < 0)
        goto done;
    while (at != NULL && http_field_next(&at, end, &field)) {
        line.size = 0;
        const char *separator = field.value_size > 0 ? ": " : ";"; /* curl: an empty value */
        if (http_buffer_add(&line, field.name, field.name_size) < 0 ||
            http_buffer_add(&line, separator, strlen(separator)) < 0 ||
            http_buffer_add(&line, field.value, field.value_size) < 0 ||
            add_header(transfer, line.data) < 0)
            goto done;
    }
    if (curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->headers) == CURLE_OK)
        status = 0;
done:
    http_buffer_clear(&line);
    return status;
}

static bool in_list(const char *method, const char *const list[])
{
    while (*list != NULL && strcmp(*list, method) != 0)
        list++;
    return *list != NULL;
}

static int set_method(struct http_transfer *transfer, const struct http_request *request)
{
    static const char *const idempotent[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE",
                                             NULL};
    static const char *const with_body[] = {"POST", "PUT", "PATCH", NULL};
    CURL *easy = transfer->easy;
    CURLcode bad = CURLE_OK;
    transfer->idempotent = in_list(request->method, idempotent);
    if (request->body != NULL || in_list(request->method, with_body)) {
        bad |= curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        bad |= curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_size);
        bad |= curl_easy_setopt(easy, CURLOPT_READFUNCTION, read_body);
        bad |= curl_easy_setopt(easy, CURLOPT_READDATA, transfer);
        bad |= curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, seek_body);
        bad |= curl_easy_setopt(easy, CURLOPT_SEEKDATA, transfer);
    } else if (strcmp(request->method, "HEAD") == 0) {
        bad |= curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    }
    /* without a body seek_body is not asked: then only a new connection is never retried */
    bool fresh = !transfer->idempotent && request->body_size == 0;
    bad |= curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, fresh ? 1L : 0L);
    bad |= curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    return bad == CURLE_OK ? 0 : -1;
}

/* curl's milliseconds; its 0 means no limit. */
static long limit(double seconds)
{
    if (!(seconds > 0) || seconds > 1e6)
        return 0;
    return (long)ceil(seconds * 1000);
}

static int set_options(struct http_transfer *transfer, const struct http_client_options *options,
                       const struct http_request *request, bool loopback)
{
    CURL *easy = transfer->easy;
    CURLcode bad = CURLE_OK;
    long connect_limit = limit(request->connect_timeout);
    if (connect_limit == 0)
        connect_limit = 1000000000L; /* curl's default would be 300 s */
    bad |= curl_easy_setopt(easy, CURLOPT_URL, request->url);
    bad |= curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    bad |= curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->detail);
    bad |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    bad |= curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    /* one request per connection at a time: a lost connection then is one lost request */
    bad |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    bad |= curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* else ending a transfer waits for getaddrinfo's thread */
    bad |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, limit(request->timeout));
    bad |= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_limit);
    bad |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    if (options->ca_file != NULL)
        bad |= curl_easy_setopt(easy, CURLOPT_CAINFO, options->ca_file);
    if (options->user_agent != NULL)
        bad |= curl_easy_setopt(easy, CURLOPT_USERAGENT, options->user_agent);
    if (loopback) /* a proxy cannot reach our loopback */
        bad |= curl_easy_setopt(easy, CURLOPT_PROXY, "");
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    return bad == CURLE_OK ? 0 : -1;
}

int transfer_prepare(struct http_transfer *transfer, const struct http_client_options *options,
                     const struct http_request *request, struct err *err)
{
    bool loopback = false;
    transfer->max_response = options->max_response;
    if (read_url(transfer, request, &loopback, err) < 0)
        return -1;
    transfer->easy = curl_easy_init();
    if (transfer->easy == NULL)
        goto memory;
    if (request->body != NULL &&
        http_buffer_add(&transfer->request_body, request->body, request->body_size) < 0)
        goto memory;
    if (set_options(transfer, options, request, loopback) < 0 ||
        set_method(transfer, request) < 0 ||
        set_headers(transfer, request) < 0)
        goto memory;
    return 0;
memory:
    return err_set(err, "CONNECT", "%s: out of memory", transfer->name);
}

/* ---- judging its end ---- */

/* Before anything of the request was sent: which of the codes that say so. */
static int fail_unsent(struct http_transfer *transfer, CURLcode result)
{
    struct err *err = &transfer->err;
    const char *detail = transfer->detail[0] != '\0' ? transfer->detail
        : curl_easy_strerror(result);
    switch (result) {
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return err_set(err, "URL", "%s: %s", transfer->name, detail);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return err_set(err, "RESOLVE", "%s: %s", transfer->name, detail);
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_USE_SSL_FAILED:
        return err_set(err, "TLS", "%s: %s", transfer->name, detail);
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(err, "CONNECT", "%s: timed out while connecting", transfer->name);
    default:
        return err_set(err, "CONNECT", "%s: %s", transfer->name, detail);
    }
}

/* curl's texts of this phase may quote what the server sent; its constant ones cannot. */
static int fail_sent(struct http_transfer *transfer, CURLcode result)
{
    struct err *err = &transfer->err;
    if (transfer->too_large)
        return err_set(err, "TOO_LARGE", "%s: the response is larger than %zu bytes",
                       transfer->name,
                       transfer->max_response);
    switch (result) {
    case CURLE_OPERATION_TIMEDOUT:
        return err_set(err, "TIMEDOUT", "%s: no complete response in time", transfer->name);
    case CURLE_GOT_NOTHING:
        return err_set(err, "LOST", "%s: connection closed without a response", transfer->name);
    case CURLE_SEND_FAIL_REWIND: /* curl wanted to send it again, see seek_body */
        return err_set(err, "LOST", "%s: connection lost before a response", transfer->name);
    case CURLE_UNSUPPORTED_PROTOCOL: /* curl's word for HTTP/0.9 */
    case CURLE_WEIRD_SERVER_REPLY:
        return err_set(err, "LOST", "%s: the answer is not HTTP", transfer->name);
    case CURLE_WRITE_ERROR:
    case CURLE_OUT_OF_MEMORY:
        return err_set(err, "LOST", "%s: out of memory", transfer->name);
    default:
        return err_set(err, "LOST", "%s: %s", transfer->name, curl_easy_strerror(result));
    }
}

void transfer_judge(struct http_transfer *transfer, CURLcode result)
{
    if (result == CURLE_OK && transfer->header_ended)
        return;
    /* curl is content with a connection that closes in the middle of the header */
    if (result == CURLE_OK)
        result = CURLE_RECV_ERROR;
    long sent = 0; /* bytes of requests that left */
    curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &sent);
    if (sent == 0)
        fail_unsent(transfer, result);
    else
        fail_sent(transfer, result);
}

int http_transfer_response(const struct http_transfer *transfer, struct http_response *response,
                           struct err *err)
{
    if (transfer->err.code[0] != '\0') {
        *err = transfer->err;
        return -1;
    }
    long status = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    response->status = (int)status;
    response->fields = transfer->fields.data != NULL ? transfer->fields.data : "";
    response->fields_size = transfer->fields.size;
    response->body = transfer->body.data != NULL ? transfer->body.data : "";
    response->body_size = transfer->body.size;
    return 0;
}

