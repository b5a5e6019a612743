"""Images in messages: import paths of Byzer-LLM, see `byzerllm.absent`."""

from byzerllm.absent import names

__getattr__ = names(
    __name__,
    """get_image_data llava_formater convert_base64_to_data_uri gpt4v_formatter extract_img_paths""",
)
