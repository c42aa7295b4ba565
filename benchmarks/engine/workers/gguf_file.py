"""Write a Hugging Face Llama folder as a GGUF file for llama.cpp: {folder, file, dtype} on stdin.

llama.cpp turns neighbouring pairs of a head where transformers turns its first half against its second, so the rows of
the query and key weights are put in that order.  Norms stay float32, as llama.cpp wants them.  There is no vocabulary
in the file: engines are given tokens.
"""

import json
import os
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.torch import load_file

KINDS = {"float32": gguf.GGMLQuantizationType.F32, "bfloat16": gguf.GGMLQuantizationType.BF16,
         "float16": gguf.GGMLQuantizationType.F16}  # fmt: skip
NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def named(name: str) -> str:
    """Return llama.cpp's name of a weight."""
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}  # fmt: skip
    if name in fixed:
        return fixed[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Return the rows of a query or key weight with each head's two halves shuffled into each other."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def main() -> None:
    job = json.loads(sys.stdin.read())
    folder, kind = Path(job["folder"]), KINDS[job["dtype"]]
    config = json.loads((folder / "config.json").read_text())
    part = job["file"] + ".part"
    out = gguf.GGUFWriter(part, "llama")
    out.add_name(folder.name)
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_head_count_kv(config["num_key_value_heads"])
    out.add_key_length(config["head_dim"])
    out.add_value_length(config["head_dim"])
    out.add_rope_dimension_count(config["head_dim"])
    out.add_rope_freq_base(config["rope_theta"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_vocab_size(config["vocab_size"])
    out.add_tokenizer_model("no_vocab")
    for name, tensor in load_file(folder / "model.safetensors").items():
        weight = tensor.float().numpy()
        if "q_proj" in name:
            weight = interleaved(weight, config["num_attention_heads"])
        elif "k_proj" in name:
            weight = interleaved(weight, config["num_key_value_heads"])
        stored = KINDS["float32"] if weight.ndim == 1 else kind
        data = gguf.quants.quantize(np.ascontiguousarray(weight), stored)
        out.add_tensor(named(name), data, raw_dtype=stored)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    os.replace(part, job["file"])
    print(json.dumps({"file": job["file"]}))


main()
