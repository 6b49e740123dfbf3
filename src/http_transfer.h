/*
 * One request as libcurl sees it: private to http_client.c, which moves it, and http_transfer.c,
 * which sets it up and judges how it ended.
 */
#ifndef ROUSE_HTTP_TRANSFER_H
#define ROUSE_HTTP_TRANSFER_H

#include <curl/curl.h>

#include "http_client.h"

enum { TRANSFER_NAME = 300 };

struct http_transfer {
    struct http_client *client;  /* NULL once ended */
    struct http_transfer *next, *prev;
    CURL *easy;
    struct curl_slist *headers;
    struct http_buffer request_body;
    size_t request_at;
    bool idempotent;
    struct http_buffer fields, body;
    size_t max_response;
    bool header_ended;           /* of the last response: what came is no mere beginning */
    bool too_large;
    struct err err;              /* code is "" when a response came */
    http_done_fn *done;
    void *data;
    /* "GET https://host/path", without query and credentials: for messages */
    char name[TRANSFER_NAME];
    char detail[CURL_ERROR_SIZE];
};

/*
 * Fills transfer->easy and what it refers to. 0, or -1 and err. What was acquired is
 * http_transfer_free's.
 */
int transfer_prepare(struct http_transfer *transfer, const struct http_client_options *options,
                     const struct http_request *request, struct err *err);

/* Fills transfer->err from the transfer's result; a success leaves it alone. */
void transfer_judge(struct http_transfer *transfer, CURLcode result);

#endif
