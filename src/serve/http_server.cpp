#include "serve/http_server.h"

#include <fmt/format.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "base/error.h"
#include "serve/http_connection.h"

namespace minke {

namespace asio = boost::asio;
using tcp = asio::ip::tcp;

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Payload Too Large";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return status < 500 ? "Error" : "Internal Server Error";
  }
}

// All of it but the constructor, the destructor and drain() runs on thread_.
class HttpServer::Listener {
 public:
  Listener(const HttpSettings& settings, HttpHandler handler, HttpErrorBody error_body)
      : io_(std::make_shared<asio::io_context>(1)),
        context_{.settings = settings,
                 .handler = std::move(handler),
                 .error_body = std::move(error_body),
                 .on_closed = [this](const auto& connection) { forget(connection); },
                 .io = io_,
                 .bodies = std::make_shared<BodyBudget>(settings.max_bodies_bytes)},
        acceptor_(*io_),
        retry_(*io_) {
    listen();
    accept();
    thread_ = std::thread([this] { io_->run(); });
  }

  ~Listener() {
    asio::post(*io_, [this] { close_all(); });
    thread_.join();
  }

  int port() const { return port_; }
  std::size_t n_connections() const { return n_connections_; }

  bool drain(double timeout_s) {
    asio::post(*io_, [this] {
      stop_accepting();
      context_.draining = true;
      for (const auto& connection : std::set(connections_)) connection->drain();
    });
    std::unique_lock lock(mutex_);
    return ended_.wait_for(lock, std::chrono::duration<double>(timeout_s),
                           [&] { return stopped_ && n_connections_ == 0; });
  }

 private:
  void listen() {
    const std::string where =
        fmt::format("cannot listen on {} port {}", context_.settings.host, context_.settings.port);
    boost::system::error_code error;
    tcp::resolver resolver(*io_);
    const auto found =
        resolver.resolve(context_.settings.host, std::to_string(context_.settings.port),
                         tcp::resolver::passive, error);
    if (error) throw IoError(fmt::format("{}: {}", where, error.message()));
    const tcp::endpoint endpoint = *found.begin();
    const auto check = [&] {
      if (error)
        throw IoError(
            fmt::format("{}: {}; choose another with --host and --port", where, error.message()));
    };
    acceptor_.open(endpoint.protocol(), error), check();
    acceptor_.set_option(tcp::acceptor::reuse_address(true), error), check();
    acceptor_.bind(endpoint, error), check();
    acceptor_.listen(4096, error), check();
    port_ = acceptor_.local_endpoint().port();
  }

  void accept() {
    acceptor_.async_accept([this](boost::system::error_code error, tcp::socket socket) {
      if (!acceptor_.is_open()) return;
      if (error) return accept_later();
      add(std::move(socket));
      accept();
    });
  }

  // Out of file descriptors, most likely: they come back when connections end.
  void accept_later() {
    retry_.expires_after(std::chrono::milliseconds(50));
    retry_.async_wait([this](boost::system::error_code error) {
      if (!error && acceptor_.is_open()) accept();
    });
  }

  void add(tcp::socket socket) {
    const auto connection = std::make_shared<HttpConnection>(std::move(socket), context_);
    connections_.insert(connection);
    const std::size_t n = ++n_connections_;
    if (n > context_.settings.max_connections)
      connection->refuse(503, fmt::format("{} connections are open already, as many as may",
                                          context_.settings.max_connections));
    else
      connection->start();
  }

  void forget(const std::shared_ptr<HttpConnection>& connection) {
    if (connections_.erase(connection) == 0) return;
    --n_connections_;
    notify();
  }

  void stop_accepting() {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    retry_.cancel();
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    notify();
  }

  void notify() {
    std::lock_guard lock(mutex_);
    ended_.notify_all();
  }

  void close_all() {
    stop_accepting();
    for (const auto& connection : std::set(connections_)) connection->close();
  }

  const std::shared_ptr<asio::io_context> io_;
  HttpContext context_;
  tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  int port_ = 0;
  std::set<std::shared_ptr<HttpConnection>> connections_;
  std::atomic<std::size_t> n_connections_{0};
  std::mutex mutex_;
  std::condition_variable ended_;
  bool stopped_ = false;
  std::thread thread_;
};

HttpServer::HttpServer(const HttpSettings& settings, HttpHandler handler, HttpErrorBody error_body)
    : listener_(std::make_unique<Listener>(settings, std::move(handler), std::move(error_body))) {}
HttpServer::~HttpServer() = default;
int HttpServer::port() const {
  return listener_->port();
}
std::size_t HttpServer::n_connections() const {
  return listener_->n_connections();
}
bool HttpServer::drain(double timeout_s) {
  return listener_->drain(timeout_s);
}

}  // namespace minke
