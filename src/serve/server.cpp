#include "serve/server.h"

#include <fmt/format.h>

#include "base/log.h"
#include "serve/api_error.h"
#include "serve/web_page.h"

namespace minke {
namespace {

constexpr std::size_t kWorkers = 2, kMostWork = 1024;

HttpSettings with_headers(const ServerSettings& settings) {
  HttpSettings http = settings.http;
  http.headers.emplace_back("X-Content-Type-Options", "nosniff");
  if (!settings.cors_origin.empty()) {
    http.headers.emplace_back("Access-Control-Allow-Origin", settings.cors_origin);
    if (settings.cors_origin != "*") http.headers.emplace_back("Vary", "Origin");
  }
  return http;
}

HttpResponse bad_http(int status, std::string_view message) {
  ApiError error(status, std::string(message));
  if (status == 503) error.retry_after_s = 1;
  return error_response(error);
}

HttpResponse preflight(std::string_view method) {
  return {.status = 204,
          .content_type = "",
          .headers = {{"Access-Control-Allow-Methods", fmt::format("{}, OPTIONS", method)},
                      {"Access-Control-Allow-Headers", "Authorization, Content-Type"},
                      {"Access-Control-Max-Age", "86400"}}};
}

HttpResponse web_response(const WebFile& file, const HttpRequest& request) {
  HttpResponse response{.content_type = std::string(file.content_type),
                        .headers = {{"ETag", std::string(file.etag)},
                                    {"Cache-Control", "no-cache"},
                                    {"Content-Security-Policy", std::string(file.policy)},
                                    {"Referrer-Policy", "no-referrer"}}};
  if (request.if_none_match == file.etag)
    response.status = 304;
  else
    response.body = std::string(file.bytes);
  return response;
}

// Whatever went wrong, as an answer.
HttpResponse failure(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const ApiError& e) {
    return error_response(e);
  } catch (const std::exception& e) {
    log_warning(fmt::format("a request failed: {}", e.what()));
    return error_response(ApiError(500, "the server could not answer; its log says why"));
  }
}

}  // namespace

ApiServer::ApiServer(const ServerSettings& settings, ApiKeys keys)
    : settings_(settings),
      keys_(std::move(keys)),
      metrics_(settings.info),
      log_(settings.access_log),
      work_(std::make_unique<WorkQueue>(kWorkers, kMostWork)),
      http_(std::make_unique<HttpServer>(
          with_headers(settings),
          [this](HttpRequest request, std::shared_ptr<HttpReply> reply) {
            handle(std::move(request), std::move(reply));
          },
          bad_http)) {}

ApiServer::~ApiServer() {
  http_.reset();  // first: it hands work to the others
  work_.reset();
}

void ApiServer::serve(const ServedModel& model, Backend& backend) {
  ApiLimits limits = settings_.limits;
  limits.vocab = model.vocab;
  routes_ = std::make_unique<ApiRoutes>(model, backend, limits, settings_.default_max_tokens);
  ready_ = routes_.get();
}

bool ApiServer::stop(double timeout_s) {
  stopping_ = true;
  const bool drained = http_->drain(timeout_s);
  http_.reset();
  work_.reset();
  return drained;
}

const ApiRoutes& ApiServer::routes() const {
  if (stopping_) throw ApiError(503, "the server is shutting down");
  const ApiRoutes* routes = ready_;
  if (!routes) throw ApiError(503, "the model is being loaded; try again later");
  return *routes;
}

void ApiServer::ended(const RequestRecord& record) {
  metrics_.record(record);
  log_.write(record);
}

void ApiServer::send(HttpResponse response, HttpReply& reply, RequestRecord record) {
  record.status = response.status;
  ended(record);
  reply.send(std::move(response));
}

void ApiServer::handle(HttpRequest request, std::shared_ptr<HttpReply> reply) {
  RequestRecord record;
  record.method = request.method;
  record.route = "other";
  record.body_bytes = request.body.size();
  try {
    const auto match = find_route(request.path);
    if (match) record.route = name_of(match->route);
    if ((!match || needs_key(match->route)) && request.method != "OPTIONS" &&
        !keys_.accepts(request.authorization))
      throw ApiError(401, "wrong or missing API key; send it as Authorization: Bearer KEY", "",
                     "invalid_api_key");
    if (!match) throw ApiError(404, "there is no such route; docs/serving.md lists them");
    const std::string method(method_of(match->route));
    if (request.method == "OPTIONS" && !settings_.cors_origin.empty())
      return send(preflight(method), *reply, record);
    const bool is_head = request.method == "HEAD" && method == "GET";  // sent without its body
    if (request.method != method && !is_head) {
      HttpResponse response = error_response(
          ApiError(405, fmt::format("{} takes {} only", name_of(match->route), method)));
      response.headers.emplace_back("Allow", method == "GET" ? "GET, HEAD" : method);
      return send(std::move(response), *reply, record);
    }
    if (method == "GET") return send(answer_get(*match, request), *reply, record);
    routes();  // 503 at once, without a look at the body
    post(*match, std::move(request), reply, record);
  } catch (...) {
    send(failure(std::current_exception()), *reply, record);
  }
}

HttpResponse ApiServer::answer_get(const RouteMatch& match, const HttpRequest& request) const {
  switch (match.route) {
    case Route::Health:
      routes();
      return {.body = R"({"status":"ok"})"};
    case Route::Metrics: {
      const ApiRoutes* routes = ready_;
      return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
              .body = metrics_.text(routes ? routes->statistics() : BatchStatistics{})};
    }
    case Route::Page:
      return web_response(*find_web_file(match.argument), request);
    case Route::Models:
      return routes().models();
    default:
      return routes().model(match.argument);
  }
}

// Parsing and tokenizing may take long: not here, on the network's thread.
void ApiServer::post(const RouteMatch& match, HttpRequest request, std::shared_ptr<HttpReply> reply,
                     const RequestRecord& record) {
  auto work = [this, match, request = std::move(request), reply, record] {
    try {
      run_post(match, request, reply, record);
    } catch (...) {
      send(failure(std::current_exception()), *reply, record);
    }
  };
  if (work_->add(std::move(work))) return;
  ApiError error(429, "too many requests are being read", "", "rate_limit_exceeded");
  error.retry_after_s = 1;
  throw error;
}

void ApiServer::run_post(const RouteMatch& match, const HttpRequest& request,
                         const std::shared_ptr<HttpReply>& reply, const RequestRecord& record) {
  const ApiRoutes& api = routes();
  const auto at_end = [this](const RequestRecord& r) { ended(r); };
  switch (match.route) {
    case Route::Chat:
      return api.chat(request.body, match.beta, reply, record, at_end);
    case Route::Completions:
      return api.completions(request.body, reply, record, at_end);
    case Route::Tokenize:
      return send(api.tokenize(request.body), *reply, record);
    default:
      return send(api.detokenize(request.body), *reply, record);
  }
}

}  // namespace minke
