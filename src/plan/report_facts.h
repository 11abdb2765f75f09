// What the published reports state as measured or chosen and nothing here can derive: the inputs of
// the reproduced figures. Everything else is computed.
//   V3        arXiv 2412.19437 (DeepSeek-V3 Technical Report)
//   V2        arXiv 2405.04434
//   hardware  arXiv 2505.09343 (the same group, on scaling and hardware for DeepSeek-V3)
//   overview  DeepSeek-V3/R1 inference system overview, March 2025
#pragma once
#include "plan/cost.h"
#include "plan/serving.h"

namespace minke::facts {

// Training (V3, sections 1, 3.2, 4.2, 4.3, table 1).
inline constexpr double kTokens = 14.8e12;
inline constexpr double kHoursPerTrillion = 180e3;  // H800 hours, rounded by the report
inline constexpr double kContextHours = 119e3;
inline constexpr double kPostTrainingHours = 5e3;
inline constexpr double kActiveRounded = 37e9;  // activated parameters, rounded by the report
inline constexpr int kZeroStage = 1;
inline constexpr int kTensorParallel = 1;
inline const std::vector<ContextPhase> kContextPhases = {{1000, 1920, 32768}, {1000, 480, 131072}};

// A step of the whole run (hardware, table 4, MPFT column): seconds of one rank.
inline constexpr double kStepSeconds = 19.926;
struct StepParts {
  double F = 1.13, bubble = 2.06, B = 1.99, W = 0.48, FB = 13.95, optimizer = 0.29;
  double sum() const { return F + bubble + B + W + FB + optimizer; }
};

// H800 hours per trillion tokens of DeepSeek-V2 and DeepSeek 67B (V2, section 3.2.3).
inline constexpr double kV2HoursPerTrillion = 172.8e3;
inline constexpr double k67bHoursPerTrillion = 300.6e3;
inline constexpr double kV2CacheBits =
    6;  // V2, section 3.2.3: cache quantised to 6 bits on average

// Llama-3.1-405B: H100 hours of its model card; tokens of arXiv 2407.21783.
inline constexpr double kLlama405bHours = 30.84e6;
inline constexpr double kLlama405bTokens = 15.6e12;

// Share of the FP8 peak at which compute is compared with the exchange: an assumption.
inline constexpr double kAssumedShareOfPeak = 0.5;

// Decoding (hardware, section 2.3.2): tokens of a device and micro-batch, its rounded hidden size,
// and a network of 900 GB/s (GB200 NVL72).
inline constexpr double kDecodeTokens = 32;
inline constexpr double kRoundedHidden = 7000;
inline constexpr double kNvl72BytesPerS = 900e9;
// Acceptance of the second token (V3, section 5.4.3).
inline constexpr double kAcceptanceMin = 0.85, kAcceptanceMax = 0.90;

// A day of the published service (overview), and what a node reached, cached prompts included.
inline constexpr ServingDay kServingDay = {.mean_nodes = 226.75,
                                           .devices_per_node = 8,
                                           .price_per_device_hour = 2,
                                           .input_tokens = 608e9,
                                           .input_cached = 342e9,
                                           .output_tokens = 168e9,
                                           .usd_per_1e6_cached = 0.14,
                                           .usd_per_1e6_input = 0.55,
                                           .usd_per_1e6_output = 2.19};
inline constexpr double kPrefillTokensPerSPerNode = 73.7e3;
inline constexpr double kDecodeTokensPerSPerNode = 14.8e3;

}  // namespace minke::facts
