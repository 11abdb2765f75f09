// What the model is given for a request: token ids. Text of messages is never read as a special
// token; the text of a plain completion is (there the prompt is the client's own), but not that of
// a fill-in-the-middle request, whose three tokens are placed by the server.
//
// Tools. The published templates do not render them, so they stand at the end of the system text:
//   ## Tools
//   You have access to the following tools:
//   ### NAME
//   Description: ...
//   Parameters: {JSON schema}
// followed by how to call one: by the vocabulary's tool tokens, or as {"name", "arguments"}.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "serve/openai_request.h"
#include "serve/served_model.h"

namespace minke {

struct ChatPrompt {
  std::vector<std::int32_t> ids;
  bool thinking = false;  // the answer begins inside its thinking
};

// ApiError 400 when the model has no chat template.
ChatPrompt chat_prompt(const ServedModel& model, const ChatRequest& request);

struct CompletionPrompt {
  std::vector<std::int32_t> ids;
  bool begins_with_bos = false;  // added here: no part of the echoed text
};
// ApiError 400 for a suffix when the vocabulary has no tokens for it.
CompletionPrompt completion_prompt(const ServedModel& model, const PromptInput& input,
                                   const std::optional<std::string>& suffix);

// The part of the system text that describes the tools of a request.
std::string describe_tools(const ServedModel& model, const ChatRequest& request);

}  // namespace minke
