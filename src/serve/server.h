// The API server: HTTP in front, the model behind. The port is open before there is a model; until
// then /health and everything else that needs one answer 503.
#pragma once
#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "serve/access_log.h"
#include "serve/api_keys.h"
#include "serve/api_routes.h"
#include "serve/http_server.h"
#include "serve/metrics.h"
#include "serve/router.h"
#include "serve/work_queue.h"

namespace minke {

struct ServerSettings {
  HttpSettings http = {};
  ApiLimits limits = {};
  std::int64_t default_max_tokens = 4096;
  std::string cors_origin;  // "": pages of other origins may not read answers
  std::string access_log;   // as in AccessLog
  std::vector<std::pair<std::string, std::string>> info = {};  // labels of minke_build_info
};

class ApiServer {
 public:
  // Listens. IoError when the address or the log cannot be used.
  ApiServer(const ServerSettings& settings, ApiKeys keys);
  ~ApiServer();

  int port() const { return http_->port(); }
  // From now on requests are answered. Both must live until stop() has returned and until every
  // request has ended.
  void serve(const ServedModel& model, Backend& backend);
  // Takes no more connections and requests, lets those that run come to their end for at most
  // timeout_s, cancels the rest (then false).
  bool stop(double timeout_s);

 private:
  void handle(HttpRequest request, std::shared_ptr<HttpReply> reply);
  HttpResponse answer_get(const RouteMatch& match, const HttpRequest& request) const;
  void post(const RouteMatch& match, HttpRequest request, std::shared_ptr<HttpReply> reply,
            const RequestRecord& record);
  void run_post(const RouteMatch& match, const HttpRequest& request,
                const std::shared_ptr<HttpReply>& reply, const RequestRecord& record);
  void send(HttpResponse response, HttpReply& reply, RequestRecord record);
  void ended(const RequestRecord& record);
  const ApiRoutes& routes() const;  // ApiError 503 while there is none

  const ServerSettings settings_;
  const ApiKeys keys_;
  Metrics metrics_;
  AccessLog log_;
  std::unique_ptr<ApiRoutes> routes_;
  std::atomic<const ApiRoutes*> ready_{nullptr};
  std::atomic<bool> stopping_{false};
  std::unique_ptr<WorkQueue> work_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace minke
