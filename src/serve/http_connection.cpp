#include "serve/http_connection.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <chrono>
#include <ctime>

namespace minke {

namespace asio = boost::asio;
namespace http = boost::beast::http;

namespace {

// Of the next requests, while one is being answered; a client that sends more waits.
constexpr std::size_t kMostReadAhead = std::size_t{64} << 10;
// After an answer that closes the connection, what the client still sends is read for so long: a
// reset would take the answer away from it.
constexpr std::size_t kMostDiscarded = std::size_t{256} << 20;
constexpr double kLingerSeconds = 10;
// An answer that comes so soon needs no look at whether its client is still there.
constexpr double kProbeAfterSeconds = 0.05;

std::string text_of(boost::beast::string_view text) {
  return std::string(text);
}

// Of "/path?query", or of "http://host/path?query", which proxies send (RFC 9112, 3.2.2).
std::string path_of(std::string_view target) {
  target = target.substr(0, target.find('?'));
  if (target.starts_with('/')) return std::string(target);
  const std::size_t scheme = target.find("://");
  if (scheme == std::string_view::npos) return std::string(target);
  const std::size_t path = target.find('/', scheme + 3);
  return path == std::string_view::npos ? "/" : std::string(target.substr(path));
}

}  // namespace

// The reply to one request. It may outlive the connection.
class HttpConnection::Exchange : public HttpReply {
 public:
  Exchange(std::weak_ptr<HttpConnection> connection, std::shared_ptr<asio::io_context> io,
           std::uint64_t number)
      : connection_(std::move(connection)), io_(std::move(io)), number_(number) {}
  ~Exchange() override {
    then([](HttpConnection& c) {
      if (!c.answer_complete_) c.close();
    });
  }

  void send(HttpResponse response) override {
    then([response = std::move(response)](HttpConnection& c) mutable {
      c.send(std::move(response));
    });
  }
  void start_stream(HttpResponse head) override {
    then([head = std::move(head)](HttpConnection& c) mutable { c.start_stream(std::move(head)); });
  }
  void write(std::string bytes) override {
    then([bytes = std::move(bytes)](HttpConnection& c) mutable {
      c.write_stream(std::move(bytes));
    });
  }
  void finish() override {
    then([](HttpConnection& c) { c.finish_stream(); });
  }
  void on_gone(std::function<void()> gone) override {
    asio::post(*io_, [connection = connection_, number = number_, gone = std::move(gone)] {
      const auto c = connection.lock();
      if (!c || c->state_ == State::Closed) return gone();
      if (c->exchange_number_ == number && !c->answer_complete_) c->gone_ = gone;
    });
  }

 private:
  template <class Action>
  void then(Action action) {
    asio::post(*io_,
               [connection = connection_, number = number_, action = std::move(action)]() mutable {
                 const auto c = connection.lock();
                 if (c && c->state_ == State::Answering && c->exchange_number_ == number)
                   action(*c);
               });
  }

  const std::weak_ptr<HttpConnection> connection_;
  const std::shared_ptr<asio::io_context> io_;
  const std::uint64_t number_;
};

HttpConnection::HttpConnection(Socket socket, HttpContext& context)
    : socket_(std::move(socket)),
      context_(context),
      read_deadline_(*context.io),
      write_deadline_(*context.io),
      comment_timer_(*context.io) {}

void HttpConnection::start() {
  Error ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  read_header();
}

void HttpConnection::refuse(int status, std::string_view message) {
  state_ = State::Answering;
  refused_ = true;
  ++exchange_number_;
  gone_ = nullptr;
  keep_alive_ = head_only_ = answer_started_ = answer_complete_ = false;
  send(context_.error_body(status, message));
}

void HttpConnection::drain() {
  if (state_ == State::Idle) close();
  keep_alive_ = false;
}

void HttpConnection::close() {
  if (state_ == State::Closed) return;
  state_ = State::Closed;
  Error ignored;
  socket_.shutdown(Socket::shutdown_both, ignored);
  socket_.close(ignored);
  read_deadline_.cancel();
  write_deadline_.cancel();
  comment_timer_.cancel();
  if (const auto gone = std::exchange(gone_, nullptr)) gone();
  context_.on_closed(shared_from_this());
}

void HttpConnection::expire_after(Timer& timer, double seconds, void (HttpConnection::*late)()) {
  timer.expires_after(
      std::chrono::duration_cast<Timer::duration>(std::chrono::duration<double>(seconds)));
  timer.async_wait([self = shared_from_this(), late](Error error) {
    if (!error && self->state_ != State::Closed) (self.get()->*late)();
  });
}

// Between requests the client may take its time; from the first byte of one it may not.
void HttpConnection::wait_for_request() {
  if (context_.draining) return close();
  if (buffer_.size() > 0) return read_header();
  state_ = State::Idle;
  expire_after(read_deadline_, context_.settings.idle_timeout_s, &HttpConnection::close);
  socket_.async_wait(Socket::wait_read, [self = shared_from_this()](Error error) {
    if (self->state_ == State::Closed) return;
    if (error) return self->close();
    self->read_header();
  });
}

void HttpConnection::read_header() {
  state_ = first_request_ && buffer_.size() == 0 ? State::Idle : State::Reading;
  parser_.emplace();
  parser_->header_limit(static_cast<std::uint32_t>(context_.settings.max_header_bytes));
  parser_->body_limit(context_.settings.max_body_bytes);
  parser_->get().body().share = std::make_shared<BodyBudget::Share>(context_.bodies);
  expire_after(read_deadline_, context_.settings.header_timeout_s, &HttpConnection::too_slow);
  reading_ = true;
  http::async_read_header(
      socket_, buffer_, *parser_,
      [self = shared_from_this()](Error error, std::size_t) { self->on_header(error); });
}

void HttpConnection::on_header(Error error) {
  reading_ = false;
  if (state_ != State::Idle && state_ != State::Reading) return;
  first_request_ = false;
  state_ = State::Reading;
  http_1_0_ = parser_->get().version() < 11;
  if (error) return reject(error);
  // Nobody can tell where such a body ends: it would be read as the next request.
  if (parser_->get().count(http::field::transfer_encoding) > 0 && !parser_->chunked())
    return refuse(400, "the only Transfer-Encoding that is understood is chunked");
  if (parser_->is_done()) return dispatch();
  const auto expect = parser_->get()[http::field::expect];
  if (!http_1_0_ && boost::beast::iequals(expect, "100-continue"))
    queue("HTTP/1.1 100 Continue\r\n\r\n");
  read_body();
}

void HttpConnection::read_body() {
  expire_after(read_deadline_, context_.settings.body_timeout_s, &HttpConnection::too_slow);
  reading_ = true;
  http::async_read(
      socket_, buffer_, *parser_,
      [self = shared_from_this()](Error error, std::size_t) { self->on_request(error); });
}

void HttpConnection::on_request(Error error) {
  reading_ = false;
  if (state_ != State::Reading) return;
  if (error) return reject(error);
  dispatch();
}

void HttpConnection::reject(Error error) {
  if (error == http::error::end_of_stream || error == asio::error::operation_aborted)
    return close();
  if (error == boost::system::errc::no_buffer_space)
    return refuse(503, fmt::format("the requests that are being read have {} bytes, as many as may",
                                   context_.settings.max_bodies_bytes));
  const bool from_http =
      error.category() == http::make_error_code(http::error::bad_value).category();
  if (!from_http) return close();  // the connection broke
  if (error == http::error::body_limit)
    return refuse(
        413, fmt::format("the body is larger than {} bytes", context_.settings.max_body_bytes));
  if (error == http::error::header_limit)
    return refuse(
        431, fmt::format("the header is larger than {} bytes", context_.settings.max_header_bytes));
  refuse(400, fmt::format("not an HTTP/1.1 request: {}", error.message()));
}

void HttpConnection::too_slow() {
  if (state_ == State::Idle && buffer_.size() == 0) return close();
  if (state_ == State::Idle || state_ == State::Reading)
    refuse(408, "the request did not arrive in time");
}

void HttpConnection::dispatch() {
  auto message = parser_->release();
  parser_.reset();
  read_deadline_.cancel();
  state_ = State::Answering;
  head_only_ = message.method() == http::verb::head;
  keep_alive_ = message.keep_alive() && !context_.draining;
  answer_started_ = answer_complete_ = false;
  gone_ = nullptr;
  HttpRequest request{.method = text_of(message.method_string()),
                      .path = path_of(text_of(message.target())),
                      .body = std::move(message.body().bytes),
                      .authorization = text_of(message[http::field::authorization]),
                      .origin = text_of(message[http::field::origin]),
                      .if_none_match = text_of(message[http::field::if_none_match]),
                      .share = std::move(message.body().share)};
  auto reply = std::make_shared<Exchange>(weak_from_this(), context_.io, ++exchange_number_);
  watch();
  context_.handler(std::move(request), std::move(reply));
}

void HttpConnection::watch() {
  if (watching_ || half_closed_ || buffer_.size() >= kMostReadAhead) return;
  watching_ = true;
  socket_.async_read_some(
      buffer_.prepare(4096),
      [self = shared_from_this()](Error error, std::size_t n) { self->on_watched(error, n); });
}

void HttpConnection::on_watched(Error error, std::size_t n) {
  watching_ = false;
  if (state_ == State::Closed) return;
  buffer_.commit(n);
  if (state_ == State::Lingering) return discard();
  if (state_ != State::Answering) return wait_for_request();  // the answer was sent meanwhile
  if (error == asio::error::eof) {
    half_closed_ = true;
    return expire_after(read_deadline_, kProbeAfterSeconds, &HttpConnection::probe);
  }
  if (error == asio::error::operation_aborted) return;
  if (error) return client_gone();
  watch();
}

// The client sends no more. One that has closed altogether answers what is sent now with a reset.
void HttpConnection::probe() {
  if (state_ != State::Answering || answer_complete_) return;
  if (http_1_0_ && !answer_started_) return client_gone();  // it does not know interim answers
  if (!answer_started_)
    queue("HTTP/1.1 102 Processing\r\n\r\n");
  else
    write_stream(": still there?\n\n");
  socket_.async_wait(Socket::wait_error, [self = shared_from_this()](Error error) {
    if (!error && self->state_ == State::Answering) self->client_gone();
  });
}

void HttpConnection::client_gone() {
  close();
}

std::string HttpConnection::head_of(const HttpResponse& response, std::string_view framing) {
  std::string head =
      fmt::format("HTTP/1.1 {} {}\r\nDate: {:%a, %d %b %Y %H:%M:%S} GMT\r\n", response.status,
                  reason_phrase(response.status), fmt::gmtime(std::time(nullptr)));
  if (!response.content_type.empty())
    head += fmt::format("Content-Type: {}\r\n", response.content_type);
  for (const HttpHeaders* headers : {&context_.settings.headers, &response.headers})
    for (const auto& [name, value] : *headers) head += fmt::format("{}: {}\r\n", name, value);
  head += framing;
  if (!keep_alive_)
    head += "Connection: close\r\n";
  else if (http_1_0_)
    head += "Connection: keep-alive\r\n";
  return head + "\r\n";
}

void HttpConnection::send(HttpResponse response) {
  if (answer_started_) return;
  answer_started_ = answer_complete_ = true;
  gone_ = nullptr;
  std::string bytes =
      head_of(response, response.status == 204 || response.status == 304
                            ? std::string()
                            : fmt::format("Content-Length: {}\r\n", response.body.size()));
  if (!head_only_) bytes += response.body;
  queue(std::move(bytes));
}

void HttpConnection::start_stream(HttpResponse head) {
  if (answer_started_) return;
  answer_started_ = true;
  chunked_ = !http_1_0_;
  if (!chunked_) keep_alive_ = false;  // the end of the connection is the end of the answer
  queue(head_of(head, chunked_ ? "Transfer-Encoding: chunked\r\n" : ""));
  last_event_ = std::chrono::steady_clock::now();
  comment_when_quiet();
}

// One timer a stream that looks when the last event was: none has to be set for each token.
void HttpConnection::comment_when_quiet() {
  if (!answer_started_ || answer_complete_) return;  // it ended while the timer was on its way
  const auto quiet = std::chrono::duration<double>(std::chrono::steady_clock::now() - last_event_);
  double left = context_.settings.comment_after_s - quiet.count();
  if (left <= 0) {
    write_stream(": keep-alive\n\n");
    left = context_.settings.comment_after_s;
  }
  expire_after(comment_timer_, left, &HttpConnection::comment_when_quiet);
}

void HttpConnection::write_stream(std::string bytes) {
  if (!answer_started_ || answer_complete_ || bytes.empty()) return;
  last_event_ = std::chrono::steady_clock::now();
  queue(chunked_ ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes) : std::move(bytes));
}

void HttpConnection::finish_stream() {
  if (!answer_started_ || answer_complete_) return;
  answer_complete_ = true;
  gone_ = nullptr;
  comment_timer_.cancel();
  if (chunked_) return queue("0\r\n\r\n");
  if (!writing_) answer_sent();
}

void HttpConnection::queue(std::string bytes) {
  unsent_bytes_ += bytes.size();
  if (unsent_bytes_ > context_.settings.max_unsent_bytes + bytes.size()) return client_gone();
  unsent_.push_back(std::move(bytes));
  if (!writing_) write_next();
}

void HttpConnection::write_next() {
  writing_ = true;
  expire_after(write_deadline_, context_.settings.write_timeout_s, &HttpConnection::client_gone);
  asio::async_write(socket_, asio::buffer(unsent_.front()),
                    [self = shared_from_this()](Error error, std::size_t) {
                      self->writing_ = false;
                      self->write_deadline_.cancel();
                      if (self->state_ == State::Closed) return;
                      if (error) return self->client_gone();
                      self->unsent_bytes_ -= self->unsent_.front().size();
                      self->unsent_.pop_front();
                      if (!self->unsent_.empty()) return self->write_next();
                      if (self->state_ == State::Answering && self->answer_complete_)
                        self->answer_sent();
                    });
}

void HttpConnection::answer_sent() {
  if (!keep_alive_ || context_.draining) return linger();
  if (half_closed_ && buffer_.size() == 0) return close();
  read_deadline_.cancel();
  state_ = State::Idle;
  if (!watching_) return wait_for_request();
  Error ignored;
  socket_.cancel(ignored);  // on_watched goes on
}

// Only a client that may still be sending needs it.
void HttpConnection::linger() {
  if (!refused_ && buffer_.size() == 0) return close();
  state_ = State::Lingering;
  Error ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
  if (half_closed_ || reading_) return close();
  expire_after(read_deadline_, kLingerSeconds, &HttpConnection::close);
  if (!watching_) discard();
}

void HttpConnection::discard() {
  buffer_.clear();
  socket_.async_read_some(buffer_.prepare(std::size_t{64} << 10),
                          [self = shared_from_this()](Error error, std::size_t n) {
                            if (self->state_ != State::Lingering) return;
                            self->discarded_ += n;
                            if (error || self->discarded_ > kMostDiscarded) return self->close();
                            self->discard();
                          });
}

}  // namespace minke
