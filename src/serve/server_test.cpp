// The server over real sockets, with a backend that answers as the test wants.
#include "serve/server.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <set>
#include <thread>

#include "text/byte_level.h"

namespace minke {
namespace {

// Bytes are tokens 0 to 255, then <end>.
ServedModel byte_model() {
  TokenizerParts parts;
  for (int b = 0; b < 256; ++b) {
    const char c = static_cast<char>(b);
    parts.vocab.push_back(to_stand_ins({&c, 1}));
  }
  parts.added_tokens.push_back({.id = 256, .content = "<end>", .special = true});
  parts.vocab.push_back("<end>");
  ServedModel model("bytes", Tokenizer(std::move(parts)), ChatTemplate::named("deepseek-v3"),
                    {256});
  model.vocab = 257;
  model.context = 4096;
  return model;
}

// Answers every request with the same text, byte by byte; or with nothing until it is cancelled.
class FakeBackend : public Backend {
 public:
  std::string answer = "hello";
  bool endless = false;
  bool silent = false;      // nothing comes until it is cancelled: it waits in the queue
  bool ends_by_id = false;  // the end of sentence was generated as well
  std::size_t most = 1000;  // requests at once; those that come together count as one

  ~FakeBackend() override {
    for (std::thread& thread : threads_) thread.join();
  }
  std::vector<RequestId> submit(std::vector<Submission> submissions) override {
    const std::lock_guard lock(mutex_);
    if (running_.size() >= most) throw QueueFull("the queue is full", 3);
    std::vector<RequestId> ids;
    for (Submission& s : submissions) {
      const RequestId id = ++last_;
      ids.push_back(id);
      running_.insert(id);
      threads_.emplace_back([this, id, sink = std::move(s.sink), n = s.request.n_choices,
                             prompt = static_cast<Index>(s.request.prompt.size()),
                             limit = s.request.max_tokens] { run(id, *sink, n, prompt, limit); });
    }
    return ids;
  }
  void cancel(RequestId id) override {
    const std::lock_guard lock(mutex_);
    running_.erase(id);
  }
  BatchStatistics statistics() const override {
    const std::lock_guard lock(mutex_);
    BatchStatistics s;
    s.running = static_cast<Index>(running_.size());
    return s;
  }
  bool drain(double) override { return true; }

 private:
  bool wanted(RequestId id) const {
    const std::lock_guard lock(mutex_);
    return running_.count(id) > 0;
  }
  void run(RequestId id, RequestSink& sink, Index n, Index prompt, Index limit) {
    RequestUsage usage{.prompt_tokens = prompt};
    while (silent && wanted(id)) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    for (Index choice = 0; choice < n; ++choice) {
      FinishReason reason = FinishReason::Stop;
      Index sent = 0;
      for (std::size_t i = 0; wanted(id) && (endless || i < answer.size()); ++i) {
        if (sent == limit) reason = FinishReason::Length;
        if (sent == limit) break;
        const auto byte = static_cast<unsigned char>(answer[i % answer.size()]);
        ++sent;
        if (!sink.on_token(choice, {.id = byte, .logprob = -0.5f, .top = {}})) break;
        if (endless) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
      usage.generated_tokens += sent + (ends_by_id && reason == FinishReason::Stop);
      sink.on_finish(choice, wanted(id) ? reason : FinishReason::Cancelled);
    }
    cancel(id);
    sink.on_done(usage);
  }

  mutable std::mutex mutex_;
  std::set<RequestId> running_;
  RequestId last_ = 0;
  std::vector<std::thread> threads_;
};

class Client {
 public:
  explicit Client(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  ~Client() { close(); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void send(std::string_view text) { ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL); }
  void end_sending() { shutdown(fd_, SHUT_WR); }
  // What comes until `text` has come, the server closes, or ten seconds are over.
  std::string read_until(std::string_view text) {
    while (received_.find(text) == std::string::npos && read_more()) continue;
    return std::exchange(received_, "");
  }
  std::string read_all() { return read_until(std::string_view("\0never\0", 7)); }

 private:
  bool read_more() {
    pollfd p{fd_, POLLIN, 0};
    if (poll(&p, 1, 10000) <= 0) return false;
    char buffer[4096];
    const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
    if (n <= 0) return false;
    received_.append(buffer, static_cast<std::size_t>(n));
    return true;
  }
  int fd_;
  std::string received_;
};

std::string post(std::string_view path, std::string_view body, std::string_view more = "") {
  return fmt::format("POST {} HTTP/1.1\r\nHost: x\r\n{}Content-Length: {}\r\n\r\n{}", path, more,
                     body.size(), body);
}
const std::string kChat = "/v1/chat/completions";
std::string chat_body(std::string_view more = "") {
  return fmt::format(R"({{"model":"bytes","messages":[{{"role":"user","content":"x"}}]{}}})", more);
}

class ServerThreads : public testing::Test {
 protected:
  void start(ServerSettings settings = {}, ApiKeys keys = {}) {
    settings.http.port = 0;
    server_ = std::make_unique<ApiServer>(settings, std::move(keys));
  }
  void ready() { server_->serve(model_, backend_); }
  std::string ask(std::string_view request, std::string_view until = "") {
    Client client(server_->port());
    client.send(request);
    if (until.empty()) client.end_sending();
    return until.empty() ? client.read_all() : client.read_until(until);
  }
  // Whether the backend has nothing to do within five seconds.
  bool becomes_idle() {
    for (int i = 0; i < 500 && backend_.statistics().running > 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return backend_.statistics().running == 0;
  }
  void TearDown() override {
    if (server_) server_->stop(0);
  }

  ServedModel model_ = byte_model();
  std::unique_ptr<ApiServer> server_;
  FakeBackend backend_;
};

TEST_F(ServerThreads, HealthIs503UntilThereIsAModel) {
  start();
  EXPECT_NE(ask("GET /health HTTP/1.1\r\n\r\n").find("503"), std::string::npos);
  EXPECT_NE(ask(post(kChat, chat_body())).find("server_error"), std::string::npos);
  ready();
  EXPECT_NE(ask("GET /health HTTP/1.1\r\n\r\n").find("200 OK"), std::string::npos);
}

TEST_F(ServerThreads, AnswersWithAndWithoutStreamAreTheSame) {
  start();
  ready();
  backend_.answer = "a\xE6\x98\xA5 b STOP c";
  const std::string whole = ask(post(kChat, chat_body(R"(,"stop":"STOP")")), "\"total_tokens\"");
  EXPECT_NE(whole.find(R"("content":"a春 b ")"), std::string::npos) << whole;
  EXPECT_NE(whole.find(R"("finish_reason":"stop")"), std::string::npos);
  const std::string stream =
      ask(post(kChat, chat_body(R"(,"stop":"STOP","stream":true)")), "[DONE]\n\n");
  EXPECT_NE(stream.find("text/event-stream"), std::string::npos);
  std::string text;
  for (std::size_t at = 0; (at = stream.find(R"("content":")", at)) != std::string::npos;) {
    at += 11;
    text += stream.substr(at, stream.find('"', at) - at);
  }
  EXPECT_EQ(text, "a春 b ");
}

TEST_F(ServerThreads, PipelinedRequestsAreAnsweredInOrder) {
  start();
  ready();
  const std::string all =
      ask(post("/tokenize", R"({"prompt":"ab"})") + post("/detokenize", R"({"tokens":[99,100]})") +
          "GET /nothing HTTP/1.1\r\n\r\n");
  const std::size_t first = all.find("[97,98]"), second = all.find("\"cd\""),
                    third = all.find("404 Not Found");
  EXPECT_LT(first, second);
  EXPECT_LT(second, third);
  EXPECT_NE(third, std::string::npos) << all;
}

TEST_F(ServerThreads, ChunkedBodiesAndExpect) {
  start();
  ready();
  EXPECT_NE(ask("POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                "7\r\n{\"promp\r\n9\r\nt\":\"ab\"} \r\n0\r\n\r\n")
                .find("[97,98]"),
            std::string::npos);
  Client client(server_->port());
  const std::string request = post("/tokenize", R"({"prompt":"ab"})", "Expect: 100-continue\r\n");
  const std::size_t body = request.find("{");
  client.send(request.substr(0, body));
  EXPECT_NE(client.read_until("\r\n\r\n").find("100 Continue"), std::string::npos);
  client.send(request.substr(body));
  EXPECT_NE(client.read_until("}").find("[97,98]"), std::string::npos);
}

TEST_F(ServerThreads, WhatIsNoRequestGets400) {
  start();
  ready();
  for (const std::string& request :
       {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15),
        std::string("rubbish\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        std::string("POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\nabc")})
    EXPECT_NE(ask(request).find("HTTP/1.1 400"), std::string::npos) << request;
}

TEST_F(ServerThreads, ABodyIsNeverReadAsTheNextRequest) {
  start();
  ready();
  for (const char* coding : {"gzip", "identity", "chunked, gzip", "chunked, chunked", "xchunked"}) {
    const std::string answer =
        ask(fmt::format("POST /tokenize HTTP/1.1\r\nTransfer-Encoding: {}\r\n\r\n"
                        "GET /health HTTP/1.1\r\n\r\n",
                        coding));
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400")) << answer;
    EXPECT_NE(answer.find("Transfer-Encoding"), std::string::npos) << coding;
    EXPECT_EQ(answer.find("200 OK"), std::string::npos) << coding;
  }
}

TEST_F(ServerThreads, TargetsMayNameTheHost) {
  start();
  ready();
  for (const char* target : {"http://x/health", "http://x:80/health?a=b", "http://x", "http://x?a"})
    EXPECT_NE(ask(fmt::format("GET {} HTTP/1.1\r\n\r\n", target)).find("200 OK"), std::string::npos)
        << target;
  EXPECT_NE(ask("GET * HTTP/1.1\r\n\r\n").find("404"), std::string::npos);
}

TEST_F(ServerThreads, LimitsOfSizeAndTime) {
  ServerSettings settings;
  settings.http.max_body_bytes = 1000;
  settings.http.max_header_bytes = 1000;
  settings.http.header_timeout_s = 0.2;
  settings.http.body_timeout_s = 0.2;
  start(settings);
  ready();
  EXPECT_NE(ask(post(kChat, std::string(2000, ' '))).find("413"), std::string::npos);
  EXPECT_NE(ask("GET / HTTP/1.1\r\nX: " + std::string(2000, 'x') + "\r\n\r\n").find("431"),
            std::string::npos);
  EXPECT_NE(ask("GET /hea", "\r\n\r\n").find("408"), std::string::npos);
  EXPECT_NE(ask("POST / HTTP/1.1\r\nContent-Length: 900\r\n\r\nab", "\r\n\r\n").find("408"),
            std::string::npos);
}

TEST_F(ServerThreads, KeysGuardEverythingButHealthAndThePage) {
  start({}, ApiKeys({"one", "two"}));
  ready();
  const auto status = [&](std::string_view path, std::string_view more) {
    return ask(fmt::format("GET {} HTTP/1.1\r\n{}\r\n", path, more)).substr(9, 3);
  };
  EXPECT_EQ(status("/health", ""), "200");
  EXPECT_EQ(status("/", ""), "200");
  for (const char* path : {"/v1/models", "/models", "/metrics", "/nothing"})
    for (const char* key : {"", "Authorization: Bearer on\r\n", "Authorization: Bearer onee\r\n",
                            "Authorization: one\r\n", "Authorization: Bearer \r\n"})
      EXPECT_EQ(status(path, key), "401") << path << key;
  EXPECT_EQ(status("/v1/models", "Authorization: Bearer two\r\n"), "200");
}

TEST_F(ServerThreads, OtherMethodsGet405WithAllow) {
  start();
  ready();
  const std::string answer = ask("DELETE /v1/chat/completions HTTP/1.1\r\n\r\n");
  EXPECT_NE(answer.find("405"), std::string::npos);
  EXPECT_NE(answer.find("Allow: POST"), std::string::npos);
}

TEST_F(ServerThreads, AFullQueueIs429WithRetryAfter) {
  start();
  ready();
  backend_.most = 1;
  backend_.silent = true;  // or the first might have ended before the second comes
  Client first(server_->port());
  first.send(post(kChat, chat_body()));
  for (int i = 0; i < 500 && backend_.statistics().running == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const std::string answer = ask(post(kChat, chat_body()));
  EXPECT_NE(answer.find("429"), std::string::npos) << answer;
  EXPECT_NE(answer.find("Retry-After: 3"), std::string::npos);
  first.close();
  EXPECT_TRUE(becomes_idle());
}

TEST_F(ServerThreads, PromptsOfOneRequestAreTakenTogether) {
  start();
  ready();
  backend_.most = 1;
  const std::string answer =
      ask(post("/v1/completions", R"({"model":"bytes","prompt":["a","b","c"],"max_tokens":9})"));
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer;
  for (const char* index : {R"("index":0)", R"("index":1)", R"("index":2)"})
    EXPECT_NE(answer.find(index), std::string::npos) << answer;
}

TEST_F(ServerThreads, HeadAnswersAsGetWithoutABody) {
  start();
  ready();
  for (const char* path : {"/health", "/v1/models", "/metrics", "/", "/nothing"}) {
    const auto head_of = [&](const char* method) {
      std::string answer = ask(fmt::format("{} {} HTTP/1.1\r\n\r\n", method, path));
      const std::size_t end = answer.find("\r\n\r\n") + 4;
      if (std::string_view(method) == "HEAD") {
        EXPECT_EQ(answer.size(), end) << path;
      }
      answer.resize(end);
      return answer.substr(0, answer.find("Date: ")) + answer.substr(answer.find("GMT"));
    };
    const std::string get = head_of("GET"), head = head_of("HEAD");
    if (std::string_view(path) != "/metrics") {  // that counts requests
      EXPECT_EQ(head, get) << path;
    }
    EXPECT_NE(head.find("Content-Length: "), std::string::npos) << path;
  }
  EXPECT_NE(ask("DELETE /health HTTP/1.1\r\n\r\n").find("Allow: GET, HEAD"), std::string::npos);
  EXPECT_TRUE(ask("HEAD /v1/chat/completions HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
}

TEST_F(ServerThreads, AWaitingStreamGetsComments) {
  ServerSettings settings;
  settings.http.comment_after_s = 0.05;
  start(settings);
  ready();
  backend_.silent = true;
  Client client(server_->port());
  client.send(post(kChat, chat_body(R"(,"stream":true)")));
  EXPECT_NE(client.read_until(": keep-alive\n\n").find("text/event-stream"), std::string::npos);
  EXPECT_NE(client.read_until(": keep-alive\n\n").find(": keep-alive"), std::string::npos);
  client.close();
  EXPECT_TRUE(becomes_idle());
}

// A body that is being read keeps its share; others are refused until it is gone.
TEST_F(ServerThreads, BodiesTogetherHaveABudget) {
  ServerSettings settings;
  settings.http.max_bodies_bytes = 3000;
  start(settings);
  ready();
  const std::string body = fmt::format(R"({{"prompt":"{}"}})", std::string(2000, 'a'));
  const std::string request = post("/tokenize", body);
  // Shares come and go a moment before and after what a client sees of them.
  const auto ask_until = [&](std::string_view status) {
    std::string answer;
    for (int i = 0; i < 500 && !answer.starts_with(status); ++i) answer = ask(request);
    EXPECT_TRUE(answer.starts_with(status)) << answer;
    return answer;
  };
  Client slow(server_->port());
  slow.send(request.substr(0, request.size() - 1));
  EXPECT_NE(ask_until("HTTP/1.1 503").find("Retry-After: "), std::string::npos);
  EXPECT_TRUE(ask(post("/tokenize", R"({"prompt":"ab"})")).starts_with("HTTP/1.1 200"));
  slow.send(request.substr(request.size() - 1));
  EXPECT_NE(slow.read_until("max_model_len").find("200 OK"), std::string::npos);
  for (int i = 0; i < 5; ++i) ask_until("HTTP/1.1 200");
}

// One log-probability a token of the text, and usage counts those: not the end of sentence.
TEST_F(ServerThreads, UsageOfAChatCountsTheTokensThatItsTextHas) {
  start();
  ready();
  backend_.ends_by_id = true;
  const std::string answer = ask(post(kChat, chat_body(R"(,"logprobs":true,"n":2)")));
  std::size_t entries = 0;
  for (std::size_t at = 0; (at = answer.find("\"top_logprobs\"", at)) != std::string::npos; ++at)
    ++entries;
  EXPECT_EQ(entries, 2u * 5) << answer;
  EXPECT_NE(answer.find(R"("completion_tokens":10)"), std::string::npos) << answer;
  const std::string stream = ask(
      post(kChat, chat_body(R"(,"n":2,"stream":true,"stream_options":{"include_usage":true})")));
  EXPECT_NE(stream.find(R"("completion_tokens":10)"), std::string::npos) << stream;
}

TEST_F(ServerThreads, AClientThatLeavesCancelsItsRequest) {
  start();
  ready();
  backend_.endless = true;
  for (const char* more : {"", R"(,"stream":true)"}) {
    Client client(server_->port());
    client.send(post(kChat, chat_body(more)));
    for (int i = 0; i < 500 && backend_.statistics().running == 0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(backend_.statistics().running, 1);
    client.close();
    EXPECT_TRUE(becomes_idle()) << more;
  }
}

TEST_F(ServerThreads, AHalfClosedClientGetsItsAnswer) {
  start();
  ready();
  backend_.endless = true;
  const std::string answer = ask(post(kChat, chat_body(R"(,"max_tokens":30)")));
  EXPECT_NE(answer.find(R"("finish_reason":"length")"), std::string::npos) << answer;
}

TEST_F(ServerThreads, StoppingFinishesStreams) {
  start();
  ready();
  backend_.endless = true;
  Client client(server_->port());
  client.send(post(kChat, chat_body(R"(,"stream":true,"max_tokens":100)")));
  client.read_until("\"h\"");
  std::string rest;
  std::thread reader([&] { rest = client.read_all(); });
  EXPECT_TRUE(server_->stop(10));
  reader.join();
  EXPECT_NE(rest.find("data: [DONE]\n\n"), std::string::npos);
  server_.reset();
}

}  // namespace
}  // namespace minke
