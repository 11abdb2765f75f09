// What the routes that need the model do. Functions throw ApiError; the engine's QueueFull and
// Draining are translated.
#pragma once
#include <memory>
#include <string_view>

#include "serve/backend.h"
#include "serve/generation.h"
#include "serve/openai_request.h"
#include "serve/served_model.h"

namespace minke {

class ApiRoutes {
 public:
  // The model and the backend must outlive it. default_max_tokens: of a chat answer that names
  // none.
  ApiRoutes(const ServedModel& model, Backend& backend, ApiLimits limits,
            std::int64_t default_max_tokens);

  // Start an answer; `ended` is called at its end, unless the function throws.
  void chat(std::string_view body, bool beta, std::shared_ptr<HttpReply> reply,
            RequestRecord record, RequestEnded ended) const;
  void completions(std::string_view body, std::shared_ptr<HttpReply> reply, RequestRecord record,
                   RequestEnded ended) const;

  HttpResponse models() const;
  HttpResponse model(std::string_view id) const;
  HttpResponse tokenize(std::string_view body) const;
  HttpResponse detokenize(std::string_view body) const;
  BatchStatistics statistics() const { return backend_.statistics(); }
  Backend& backend() const { return backend_; }

 private:
  void require_model(const std::string& name) const;
  ApiJson model_json(std::string_view id) const;
  // Of the context, with room for a new token; ApiError 400 when it is too long or empty, which
  // names the field that the prompt came from.
  void check_prompt(std::size_t n_tokens, bool generates, const char* field) const;
  GenerationRequest engine_request(const CommonRequest& common, std::vector<std::int32_t> prompt,
                                   std::int64_t max_tokens, const char* field) const;
  std::unique_ptr<TokenConstraint> constraint(const ChatRequest& request, bool thinking) const;
  Generation::Settings answer(const CommonRequest& common, const char* prefix, const char* object,
                              RequestRecord record, RequestEnded ended) const;
  void start(const std::shared_ptr<Generation>& generation,
             std::vector<GenerationRequest> requests) const;

  const ServedModel& model_;
  Backend& backend_;
  const ApiLimits limits_;
  const std::int64_t default_max_tokens_;
};

}  // namespace minke
